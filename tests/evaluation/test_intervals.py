"""Wilson's and Newcombe's intervals against published figures; the plain bootstrap."""

from __future__ import annotations

import pytest
import torch

from concept_probe.evaluation.bootstrap import bootstrap_counts, bootstrap_mean_interval
from concept_probe.evaluation.intervals import percentiles, ratio_percentiles, wilson
from concept_probe.evaluation.rates import difference_of_rates, success_rate


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 40, 0.0, 0.0876), (40, 40, 0.9124, 1.0), (10, 40, 0.1419, 0.4019), (81, 263, 0.2553, 0.3662)],
)
def test_the_interval_of_a_rate_is_wilsons(hits, n, low, high):
    """The last is Newcombe's example (1998, Statistics in Medicine 17, 857)."""
    found = wilson(hits / n, n)
    assert found == pytest.approx((low, high), abs=5e-4)
    assert found[0] <= hits / n <= found[1]
    assert (success_rate("", [True] * hits + [False] * (n - hits)).low, success_rate("", [1.0] * n).high) == (
        found[0],
        1,
    )


def test_the_interval_of_a_difference_is_newcombes():
    gain = difference_of_rates("", [56, 70], [48, 80])  # the example of Newcombe (1998), table II: 0.0524 to 0.3339
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    same = difference_of_rates("", [4, 8], [4, 8])
    assert same.value == 0 and same.low == -same.high
    sure = difference_of_rates("", [8, 8], [0, 8])
    assert sure.high == 1 and sure.low < 1


def test_draws_without_a_denominator_are_left_out_of_a_ratio():
    draws = torch.arange(101, dtype=torch.float64) / 100
    broken = torch.cat([draws, torch.tensor([torch.inf, torch.nan], dtype=torch.float64)])
    assert ratio_percentiles(broken) == percentiles(draws) == pytest.approx((0.025, 0.975))


def test_a_bootstrap_mean_is_that_of_its_counts_whatever_fits_in_memory(monkeypatch):
    values = torch.randn(30, generator=torch.Generator().manual_seed(0))
    counts = bootstrap_counts(30, 500, 3)
    assert bool((counts.sum(1) == 30).all())
    whole = bootstrap_mean_interval(values, 500, 3)
    assert whole == pytest.approx(percentiles(counts @ values.double() / 30), abs=1e-12)
    monkeypatch.setattr("concept_probe.evaluation.bootstrap.AT_ONCE", 64)
    assert bootstrap_mean_interval(values, 500, 3) == whole
