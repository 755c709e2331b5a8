"""Intervals: they cover what they should, pair what is paired, and have width where nothing was seen."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import beta

from concept_probe.evaluation.bayesian import BayesianBootstrap, Draws, damage_score, residual_index, samples_needed
from concept_probe.types import Score


def ones(n: int, hits: int) -> torch.Tensor:
    return (torch.arange(n) < hits).float().unsqueeze(1)


@pytest.mark.parametrize(("n", "hits"), [(8, 0), (24, 0), (24, 24), (24, 6), (60, 31)])
def test_a_plain_rate_has_the_jeffreys_interval(n, hits):
    drawn = BayesianBootstrap(20_000).rate(ones(n, hits), "x", "a")
    low, high = drawn.interval()
    exact = beta.ppf([0.025, 0.975], hits + 0.5, n - hits + 0.5)
    assert drawn.value == hits / n and drawn.n == n
    assert low == pytest.approx(exact[0], abs=0.012) and high == pytest.approx(exact[1], abs=0.012)


def covered(trials: int, truth: float, draw) -> float:
    inside = 0
    for i in range(trials):
        low, high = draw(i).interval()
        inside += low <= truth <= high
    return inside / trials


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
@pytest.mark.parametrize(("prompts", "seeds"), [(12, 2), (24, 1)])
def test_coverage_of_a_rate(rate, prompts, seeds):
    generator = torch.Generator().manual_seed(prompts)

    def draw(i):
        hits = (torch.rand(prompts, seeds, generator=generator) < rate).float()
        return BayesianBootstrap(600, i).rate(hits, "x", "a")

    assert 0.89 <= covered(300, rate, draw) <= 1


@pytest.mark.slow
def test_coverage_where_the_seeds_of_a_prompt_agree():
    """Each prompt has a rate of its own; taking its seeds for independent would make intervals too short."""
    generator, truth = torch.Generator().manual_seed(5), 0.5

    def hits():
        own = (torch.rand(16, 1, generator=generator) < truth).float() * 0.8 + 0.1
        return (torch.rand(16, 4, generator=generator) < own).float()

    assert covered(300, truth, lambda i: BayesianBootstrap(600, i).rate(hits(), "x", "a")) >= 0.9

    def flat(i):
        return BayesianBootstrap(600, i).rate(hits().reshape(-1, 1), "x", "a")

    assert covered(300, truth, flat) < 0.85


@pytest.mark.slow
@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
def test_coverage_of_an_index(truth):
    generator = torch.Generator().manual_seed(11)
    inside = 0
    for i in range(300):
        before, never = 0.95, 0.05
        rates = (before, never + truth * (before - never), never)
        bootstrap = BayesianBootstrap(600, i)
        arms = [
            bootstrap.rate((torch.rand(16, 2, generator=generator) < r).float(), "x", str(j))
            for j, r in enumerate(rates)
        ]
        score = residual_index("x", *arms, gap=0.2)
        assert score is not None
        inside += score.low <= truth <= score.high
    assert inside / 300 >= 0.9


def test_arms_that_share_a_key_are_paired():
    """Prompts that fail before also fail after: the share lost is known far better than either rate."""
    generator = torch.Generator().manual_seed(0)
    before = (torch.rand(60, 1, generator=generator) < 0.5).float()
    bootstrap = BayesianBootstrap(2000)
    a = bootstrap.rate(before, "same", "before")
    paired = bootstrap.rate(before, "same", "after")
    apart = bootstrap.rate(before, "other", "after")
    assert (a.draws - paired.draws).std() < 0.5 * (a.draws - apart.draws).std()


def test_same_seed_same_draws_and_another_seed_others():
    x = ones(10, 4)
    assert torch.equal(
        BayesianBootstrap(100, 3).rate(x, "k", "a").draws, BayesianBootstrap(100, 3).rate(x, "k", "a").draws
    )
    assert not torch.equal(
        BayesianBootstrap(100, 3).rate(x, "k", "a").draws, BayesianBootstrap(100, 4).rate(x, "k", "a").draws
    )


def test_auroc_and_its_coverage():
    generator = torch.Generator().manual_seed(2)
    shift = 1.0
    truth = 0.5 * (1 + math.erf(shift / 2))
    bootstrap = BayesianBootstrap(200)
    assert bootstrap.auroc(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0]), "x", "a").value == pytest.approx(0.875)

    def draw(i):
        return BayesianBootstrap(400, i).auroc(
            torch.randn(16, generator=generator) + shift, torch.randn(24, generator=generator), "x", "a"
        )

    assert covered(200, truth, draw) >= 0.9
    low, high = bootstrap.auroc(torch.ones(12), torch.zeros(20), "x", "a").interval()
    assert low < 0.95 and high <= 1


def test_index_of_known_rates():
    bootstrap = BayesianBootstrap(500)
    full, none, half = (bootstrap.rate(ones(40, h), "x", str(h)) for h in (40, 0, 20))
    for after, value in ((full, 1.0), (none, 0.0), (half, 0.5)):
        score = residual_index("x", full, after, none, gap=0.2)
        assert score is not None and score.value == value and score.low <= value <= score.high
    same = residual_index("x", full, full, none, gap=0.2)
    assert same is not None and same.low == same.high == 1
    assert residual_index("x", half, full, half, gap=0.2) is None
    few, fewer = bootstrap.rate(ones(4, 3), "few", "a"), bootstrap.rate(ones(4, 2), "others", "b")
    assert residual_index("x", few, few, fewer, gap=0.2) is None, "a difference of 1/4 among 4 may be nothing"


def test_share_lost():
    bootstrap = BayesianBootstrap(500)
    before, after = bootstrap.rate(ones(40, 40), "x", "before"), bootstrap.rate(ones(40, 30), "x", "after")
    score = damage_score("neighbours", before, after)
    assert score is not None and score.value == pytest.approx(0.25) and score.low < 0.25 < score.high
    assert damage_score("neighbours", Draws(0.0, torch.zeros(10), 4), after) is None


def test_samples_needed_are_about_enough():
    def width(n):
        bootstrap = BayesianBootstrap(4000)
        return bootstrap.rate(ones(n, round(0.15 * n)), "x", "a").score("rate")

    first = width(20)
    assert first.low < 0.25 < first.high
    needed = samples_needed(first, 0.25)
    assert needed is not None and 20 < needed < 400
    assert width(math.ceil(1.3 * needed)).high < 0.25
    assert samples_needed(Score("x", 0.25, 0.1, 0.4, 20), 0.25) is None
    assert samples_needed(Score("x", 0.2500001, 0.1, 0.4, 20), 0.25) is None


def test_what_a_rate_and_an_auroc_refuse():
    with pytest.raises(ValueError, match=r"found \(0, 2\)"):
        BayesianBootstrap().rate(torch.zeros(0, 2), "x", "a")
    with pytest.raises(ValueError, match=r"hits lie in 0\.\.1"):
        BayesianBootstrap().rate(torch.full((2, 2), 1.5), "x", "a")
    with pytest.raises(ValueError, match="found 0 and 3 readings"):
        BayesianBootstrap().auroc(torch.zeros(0), torch.zeros(3), "x", "a")


def test_an_auroc_of_repeated_readings_is_that_of_each_once():
    """Three readings of each thing that agree say no more than one: the draws are the same to rounding."""
    generator = torch.Generator().manual_seed(0)
    mine, others = torch.randn(5, generator=generator) + 1, torch.randn(4, generator=generator)
    bootstrap = BayesianBootstrap(200)
    once = bootstrap.auroc(mine, others, "key", "arm")
    groups = torch.arange(5).repeat_interleave(3), torch.arange(4).repeat_interleave(2)
    again = bootstrap.auroc(mine.repeat_interleave(3), others.repeat_interleave(2), "key", "arm", groups)
    assert again.n == once.n == 9 and again.value == pytest.approx(once.value)
    torch.testing.assert_close(again.draws, once.draws)
    apart = bootstrap.auroc(mine.repeat_interleave(3), others.repeat_interleave(2), "key", "arm")
    assert apart.n == 23 and apart.draws.std() < 0.8 * once.draws.std()
