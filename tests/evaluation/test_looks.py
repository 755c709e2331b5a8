"""Intervals that are looked at while a sample grows: they cover at every look, whatever the seeds of a prompt agree on."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import beta, binom

from concept_probe.evaluation.bayesian import BayesianBootstrap, at_least, damage_score, mean_of, residual_index
from concept_probe.evaluation.looks import draws_for, errors_of_looks, fewest_without_a_hit


def interval(n: int, hits: int, seeds: int, error: float) -> tuple[float, float]:
    """Of a rate where all seeds of a prompt agree."""
    rows = (torch.arange(n) < hits).float()[:, None].expand(n, seeds)
    return BayesianBootstrap(8000, 0, error, careful=True).rate(rows, "x", "after").interval()


def test_the_errors_of_all_looks_are_the_whole_and_most_is_left_for_the_last():
    assert errors_of_looks(1) == (0.05,)
    errors = errors_of_looks(4)
    assert sum(errors) == pytest.approx(0.05) and sorted(errors) == list(errors)
    assert draws_for(errors[-1]) < 2000 < draws_for(errors[0])
    with pytest.raises(ValueError, match="looks is 0"):
        errors_of_looks(0)


@pytest.mark.parametrize(("n", "hits"), [(4, 0), (8, 8), (16, 3), (64, 20)])
def test_careful_bounds_are_those_of_clopper_and_pearson_however_many_seeds_agree(n, hits):
    for seeds in (1, 3):
        low, high = interval(n, hits, seeds, 0.02)
        exact = (
            beta.ppf(0.01, hits, n - hits + 1) if hits else 0.0,
            beta.ppf(0.99, hits + 1, n - hits) if hits < n else 1.0,
        )
        assert low == pytest.approx(exact[0], abs=0.025) and high == pytest.approx(exact[1], abs=0.025)


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, 8, 16, 32, 64])
def test_coverage_at_every_look_is_at_least_what_is_said(n):
    """Counted over all outcomes, not drawn: of plain trials, and of prompts whose two seeds agree."""
    for error in errors_of_looks(3):
        known = [interval(n, hits, 2, error) for hits in range(n + 1)]
        for truth in (0.02, 0.1, 0.25, 0.5, 0.9):
            missed = sum(
                binom.pmf(hits, n, truth) for hits, (low, high) in enumerate(known) if not low <= truth <= high
            )
            assert missed <= error, (n, error, truth, missed)


@pytest.mark.slow
def test_intervals_that_are_not_careful_miss_more_than_they_say():
    """The control: twelve prompts whose seeds agree, at the error of the second of three looks."""
    error, missed = errors_of_looks(3)[1], 0.0
    for hits in range(13):
        rows = (torch.arange(12) < hits).float()[:, None].expand(12, 2)
        low, high = BayesianBootstrap(8000, 0, error).rate(rows, "x", "after").interval()
        missed += binom.pmf(hits, 12, 0.25) * (not low <= 0.25 <= high)
    assert missed > 2 * error


@pytest.mark.slow
def test_coverage_at_every_look_where_the_seeds_of_a_prompt_agree_in_part():
    """Each prompt has a rate of its own, from a law with both ends; 200 repetitions at each look."""
    generator = torch.Generator().manual_seed(1)
    for n, error in zip((4, 8, 12), errors_of_looks(3), strict=True):
        inside = 0
        for i in range(200):
            own = (torch.rand(n, 1, generator=generator) < 0.25).float() * 0.8 + 0.05
            hits = (torch.rand(n, 2, generator=generator) < own).float()
            low, high = BayesianBootstrap(draws_for(error), i, error, careful=True).rate(hits, "x", "after").interval()
            inside += low <= 0.25 <= high
        assert inside >= 200 * (1 - error)


def test_careful_ends_go_along_into_indices_losses_means_and_floors():
    careful, usual = BayesianBootstrap(2000, 0, 0.02, careful=True), BayesianBootstrap(2000, 0, 0.02)

    def rate(bootstrap: BayesianBootstrap, hits: int, side: str):
        return bootstrap.rate((torch.arange(12) < hits).float()[:, None], "x", side)

    before, after, never = (rate(careful, hits, side) for hits, side in ((12, "before"), (2, "after"), (0, "control")))
    index = residual_index("x", before, after, never, 0.2)
    plain = residual_index("x", before, rate(usual, 2, "after"), never, 0.2)
    assert index is not None and plain is not None and index.low < plain.low and index.high > plain.high
    loss = damage_score("kept", before, after)
    assert loss is not None and loss.low < 1 - 2 / 12 < loss.high < 1
    both = mean_of([after, after])
    assert both.interval() == pytest.approx(after.interval()) and both.error == 0.02
    low, high = at_least(never, 0.5).interval()
    assert low == 0.5 and high == 0.5
    # What is the same sample has no width, careful or not.
    same = residual_index("x", before, before, never, 0.2), residual_index("x", before, never, never, 0.2)
    assert [(s.low, s.high) for s in same if s is not None] == [(1.0, 1.0), (0.0, 0.0)]


@pytest.mark.parametrize("looks", [1, 3, 5])
def test_the_fewest_without_a_hit_are_those_of_a_careful_bootstrap(looks):
    error = errors_of_looks(looks)[-1]
    fewest = fewest_without_a_hit(error, 0.25)
    bootstrap = BayesianBootstrap(20_000, 0, error, careful=True)

    def highest(n: int) -> float:
        return bootstrap.rate(torch.zeros(n, 2), "none", "after").interval()[1]

    assert highest(fewest + 1) < 0.25 < highest(fewest - 2)
    assert 1 - (error / 2) ** (1 / fewest) < 0.25 <= 1 - (error / 2) ** (1 / (fewest - 1))
    with pytest.raises(ValueError, match="edge is 0"):
        fewest_without_a_hit(error, 0)
