"""Summaries on games whose values are known: against enumerations in numpy, and the axioms that each promises."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from concept_probe.find.attribution.scoring import PlayerDraws, groups_of, summarised
from concept_probe.find.attribution.summaries import SUMMARIES, Drawn, Kernel, Shapley, Sobol, Summary
from concept_probe.types import Prompt, Query

Value = Callable[[np.ndarray], np.ndarray]
"""A coalition, shares (m,), to the values (n,) of n queries."""


def play(summary: Summary, players: int, value: Value, seed: int = 0) -> PlayerDraws:
    """A game in closed form, as `attribute` plays one of a model."""
    design = summary.design(players)
    if summary.of == "gradients":
        values = torch.stack([_slopes(value, keep.numpy()) for keep in design.masks])
    else:
        values = torch.stack([torch.from_numpy(np.asarray(value(keep.numpy()), dtype=float)) for keep in design.masks])
    return summarised(summary, design, values, torch.arange(values.shape[-1]), seed)


def _slopes(value: Value, at: np.ndarray, step: float = 1e-5) -> torch.Tensor:
    """(m, n), by central differences."""
    sides = [(value(at + step * e) - value(at - step * e)) / (2 * step) for e in np.eye(len(at))]
    return torch.from_numpy(np.stack(sides))


def multilinear(players: int, queries: int = 5, seed: int = 0, order: int = 3) -> Value:
    """A random sum of products of up to `order` shares: every interaction is there, and slopes are exact."""
    draw = np.random.default_rng(seed)
    terms = [t for k in range(order + 1) for t in itertools.combinations(range(players), k)]
    weights = draw.normal(size=(queries, len(terms))) / np.sqrt(len(terms))
    return lambda keep: weights @ np.array([np.prod(keep[list(t)]) for t in terms])


def shapley_by_orders(value: Value, players: int) -> np.ndarray:
    """(m,): the mean over all m! orders, of the mean over queries."""
    total = np.zeros(players)
    for order in itertools.permutations(range(players)):
        keep = np.zeros(players)
        before = value(keep).mean()
        for i in order:
            keep[i] = 1
            after = value(keep).mean()
            total[i] += after - before
            before = after
    return total / math.factorial(players)


def banzhaf_by_coalitions(value: Value, players: int) -> np.ndarray:
    out = np.zeros(players)
    for bits in itertools.product((0.0, 1.0), repeat=players):
        for i in range(players):
            out[i] += (1 if bits[i] else -1) * value(np.array(bits)).mean()
    return out / 2 ** (players - 1)


def made(name: str, **options: Any) -> Summary:
    kind = SUMMARIES[name]
    return kind(**{k: v for k, v in options.items() if k in getattr(kind, "__dataclass_fields__", {})})


REFERENCES = {"shapley": shapley_by_orders, "kernel": shapley_by_orders, "banzhaf": banzhaf_by_coalitions}


@pytest.mark.parametrize("players", [1, 2, 3, 5])
@pytest.mark.parametrize("name", REFERENCES)
def test_enumeration_is_the_definition(name, players):
    value = multilinear(players, seed=players)
    found = play(made(name), players, value).value.numpy()
    np.testing.assert_allclose(found, REFERENCES[name](value, players), atol=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_what_is_drawn_covers_the_definition(name):
    """The estimators, told not to enumerate, hold the exact value within their interval for nearly all players."""
    players, value = 6, multilinear(6, queries=12, seed=3)
    exact = REFERENCES[name](value, players)
    hits, wide = [], []
    for seed in range(8):
        found = play(made(name, exact=False, samples=48, seed=seed), players, value, seed)
        spread = [found.interval(i) for i in range(players)]
        hits += [low <= exact[i] <= high for i, (low, high) in enumerate(spread)]
        wide += [high - low for low, high in spread]
    assert np.mean(hits) >= 0.9
    assert min(wide) > 0


@pytest.mark.parametrize("name", ["shapley", "kernel", "banzhaf"])
def test_more_draws_come_closer(name):
    players, value = 6, multilinear(6, queries=3, seed=4)
    exact = REFERENCES[name](value, players)

    def error(samples: int) -> float:
        found = [play(made(name, exact=False, samples=samples, seed=s), players, value).value.numpy() for s in range(6)]
        return float(np.sqrt(np.mean((np.stack(found) - exact) ** 2)))

    assert error(256) < 0.5 * error(16)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", [n for n, kind in SUMMARIES.items() if kind.efficient])
def test_scores_add_up_to_all_less_none(name, exact):
    players, value = 6, multilinear(6, seed=5)
    found = play(made(name, exact=exact, samples=32, points=4), players, value)
    whole = value(np.ones(players)).mean() - value(np.zeros(players)).mean()
    assert float(found.value.sum()) == pytest.approx(whole, abs=1e-8 if name == "gradients" else 1e-12)


def idle(value: Value, player: int) -> Value:
    """The same game with a player at place `player` that does nothing."""
    return lambda keep: value(np.delete(keep, player))


@pytest.mark.parametrize("players", [4, 12])
@pytest.mark.parametrize("name", SUMMARIES)
def test_a_player_that_does_nothing_has_nothing(name, players):
    """Exactly, at any sample; by least squares to rounding where all coalitions are in, else within its interval."""
    value = idle(multilinear(players - 1, queries=7, seed=6, order=2), 2)
    found = play(made(name, samples=64), players, value)
    low, high = found.interval(2)
    if name == "kernel" and players > 8:
        assert low <= 0 <= high
    elif name == "kernel":
        assert abs(float(found.value[2])) < 1e-12
    elif name == "gradients":
        assert float(found.value[2]) == 0
    else:
        assert float(found.value[2]) == low == high == 0
    assert float(found.value.abs().max()) > 0.01


@pytest.mark.parametrize("name", [n for n in SUMMARIES if n != "sobol"])
def test_players_that_do_the_same_have_the_same(name):
    """Two players of which it only counts how many there are, under summaries without sampling."""

    def value(keep: np.ndarray) -> np.ndarray:
        both = keep[0] + keep[1]
        return np.array([both + 0.5 * both * keep[2], both - keep[0] * keep[1], keep[2]])

    found = play(made(name), 3, value)
    assert float(found.value[0]) == pytest.approx(float(found.value[1]), abs=1e-9)
    assert float(found.value[0]) != pytest.approx(float(found.value[2]), abs=1e-3)


@pytest.mark.parametrize("name", [n for n, kind in SUMMARIES.items() if kind.signed])
def test_sums_of_games_are_sums_of_scores(name):
    first, second = multilinear(5, seed=7), multilinear(5, seed=8)
    a, b, both = (play(made(name), 5, v).value for v in (first, second, lambda keep: 2 * first(keep) - second(keep)))
    torch.testing.assert_close(both, 2 * a - b, atol=1e-8, rtol=0)


def test_redundant_players_are_missed_by_one_alone_by_the_other():
    """v is 1 where either is there: leaving one out costs nothing, each alone does all, and Shapley halves it."""

    def value(keep: np.ndarray) -> np.ndarray:
        return np.array([max(keep[0], keep[1])])

    worth = {name: play(made(name), 2, value).value.tolist() for name in ("leave_one_out", "alone", "shapley")}
    assert worth == {"leave_one_out": [0, 0], "alone": [1, 1], "shapley": [0.5, 0.5]}


def test_sobol_is_jansens_on_a_sum_and_a_product():
    """Of independent shares uniform in 0..1: a sum has indices a_i^2 / Σ a^2; a product of two has 4/7 for each."""
    weights = np.array([1.0, 2.0, 3.0])
    found = play(Sobol(samples=4096), 3, lambda keep: np.array([keep @ weights])).value.numpy()
    np.testing.assert_allclose(found, weights**2 / (weights**2).sum(), atol=0.01)
    product = play(Sobol(samples=4096), 2, lambda keep: np.array([keep[0] * keep[1]])).value.numpy()
    np.testing.assert_allclose(product, [4 / 7, 4 / 7], atol=0.02)


def test_sobol_of_what_never_moves_is_zero():
    found = play(Sobol(samples=8), 3, lambda keep: np.array([0.3, 0.7]))
    assert found.value.tolist() == [0, 0, 0] and not found.draws.any()


def test_integrated_gradients_are_exact_on_the_diagonal():
    """Of m_0 m_1: ∫ α dα = 1/2 each; of a square that a straight line sees, its rise."""
    found = play(made("gradients", points=3), 2, lambda keep: np.array([keep[0] * keep[1] + keep[1] ** 2]))
    np.testing.assert_allclose(found.value.numpy(), [0.5, 1.5], atol=1e-8)


def test_intervals_are_of_prompts():
    """Each query is a game of its own: the interval is that of a mean over them, and shrinks with their number."""

    def value(n: int) -> Value:
        each = np.random.default_rng(0).normal(size=n)
        return lambda keep: keep[0] * each + keep[1]

    few, many = (play(Shapley(), 2, value(n)) for n in (8, 512))
    width = [b - a for a, b in (few.interval(0), many.interval(0))]
    assert width[1] < 0.3 * width[0]
    assert few.interval(1) == (pytest.approx(1), pytest.approx(1))
    assert many.interval(0)[1] - many.interval(0)[0] == pytest.approx(2 * 1.96 / math.sqrt(512), rel=0.2)


def test_wordings_and_seeds_of_one_fact_count_once():
    def queries(*facts: str) -> list[Query]:
        return [Query(Prompt(f"text {i}", fact=fact), i) for i, fact in enumerate(facts)]

    assert groups_of(queries("a", "a", "b")).tolist() == [0, 0, 1]
    assert groups_of(queries("a", "a", "a")).tolist() == [0, 1, 2]


def test_kernel_refuses_too_few_draws():
    with pytest.raises(ValueError, match="give at least samples=40"):
        Kernel(samples=4).design(20)


def test_sobol_refuses_more_players_than_its_points_have_axes():
    with pytest.raises(ValueError, match="join players"):
        Sobol().design(20_000)


@pytest.mark.parametrize("name", SUMMARIES)
def test_designs_ask_for_what_they_say(name):
    for players in (1, 3, 10):
        summary = made(name, samples=20)
        design = summary.design(players)
        assert len(torch.unique(design.masks, dim=0)) == len(design.masks) == summary.count(players)
        assert design.masks.shape[1] == players and bool(((design.masks >= 0) & (design.masks <= 1)).all())
        again = summary.design(players)
        assert torch.equal(design.masks, again.masks) and torch.equal(design.rows, again.rows)
        if isinstance(summary, Drawn) and not summary.enumerates(players) and players > 1:
            other = replace(summary, seed=1).design(players)
            assert design.masks.shape != other.masks.shape or not torch.equal(design.masks, other.masks)


def test_a_seed_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match="seed"):
        Shapley(seed="a")  # pyright: ignore[reportArgumentType]
