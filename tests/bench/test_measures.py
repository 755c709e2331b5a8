"""Distances and counts against cases that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from concept_probe.attack.budget import success_rate
from concept_probe.bench.assail import above
from concept_probe.bench.distances import mmd, pixel_distance
from concept_probe.bench.measure import named, queries
from concept_probe.bench.memory import Peak
from concept_probe.types import Prompt
from tests.audit.known import concept
from tests.bench.cases import SETTINGS


def test_pixel_distance_of_black_and_white_is_one():
    black = torch.zeros(2, 3, 4, 4)
    assert pixel_distance(black, black) == 0 and pixel_distance(black, black + 1) == 1
    broken = black.clone()
    broken[0] = float("nan")
    assert pixel_distance(black, broken) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="paired"):
        pixel_distance(black, black[:1])


def test_discrepancy_is_unbiased_within_one_kind_and_grows_between_two():
    generator = torch.Generator().manual_seed(0)
    draw = lambda middle: torch.randn(12, 6, generator=generator) + middle  # noqa: E731
    same = [mmd(draw(0), draw(0)) for _ in range(200)]
    mean, error = sum(same) / 200, torch.tensor(same).std().item() / math.sqrt(200)
    assert abs(mean) < 4 * error
    assert mmd(draw(0), draw(torch.tensor([3.0, 0, 0, 0, 0, 0]))) > 0.2
    with pytest.raises(ValueError, match="two rows"):
        mmd(draw(0)[:1], draw(0))


def test_above_is_a_difference_with_a_newcombe_interval():
    gain = above([56, 70], [48, 80])  # the example of Newcombe (1998), table II: 0.0524 to 0.3339
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    same = above([4, 8], [4, 8])
    assert same.value == 0 and same.low == -same.high
    assert success_rate("", [True]).low < 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a drawing of polar bear in noto style", "polar bear"),
        ("a bear", "bear"),
        ("a bear and a cat", None),
        ("bearing", None),
    ],
)
def test_a_prompt_names_a_label_of_the_other_domain_or_none(text, found):
    assert named(Prompt(text), ("bear", "polar bear", "cat")) == found


def test_every_query_of_a_cell_has_its_own_noise_and_seeds_ask_other_sentences():
    first, second = (queries(concept(), SETTINGS, seed) for seed in (0, 1))
    assert {k: len(v) for k, v in first.items()} == dict(SETTINGS.counts)
    assert len({q.seed for q in first["target"]}) == 4
    assert {q.seed for q in first["target"]}.isdisjoint(q.seed for q in second["target"])
    assert {q.prompt for q in first["target"]} != {q.prompt for q in second["target"]}
    assert queries(concept(), SETTINGS, 0) == first


def test_the_peak_sees_memory_that_was_given_back():
    peak = Peak()
    if peak.above() is None:
        pytest.skip("the system does not say")
    torch.ones(64 << 20).sum()  # 256 MiB, gone afterwards; too much for what the allocator kept of earlier tests
    assert peak.above() >= 200 << 20  # pyright: ignore[reportOptionalOperand]
