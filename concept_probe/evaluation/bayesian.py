"""A Bayesian bootstrap over prompts, paired between the arms of an audit, that knows that n is finite.

A plain bootstrap of 20 failures out of 20 has no width. Here every set of n rows has one row more, of
weight 1, that is a success with a share drawn from Beta(1/2, 1/2): for a plain rate the draws are then
exactly those of the Jeffreys posterior Beta(h + 1/2, n − h + 1/2).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.arguments import Count, SeedNumber, check_arguments
from concept_probe.evaluation.intervals import percentiles
from concept_probe.types import NumberSource, Score

SMALLEST_DENOMINATOR = 0.02
"""Smallest denominator of an index in a single draw: it bounds an index at 50, and makes no decision."""


@dataclass(frozen=True, eq=False)
class Draws:
    """A number between 0 and 1 and what it could have been."""

    value: float
    draws: Float[Tensor, "r"]
    n: int
    """Prompts times seeds, or whatever was counted."""
    source: NumberSource | None = None
    """What it was made of, where that is one of the ways that a `NumberSource` knows."""

    def interval(self) -> tuple[float, float]:
        return percentiles(self.draws)

    def score(self, name: str, unit: str = "", better: str = "none", control: float | None = None) -> Score:
        low, high = self.interval()
        return Score(name, self.value, low, high, self.n, unit, better, control)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class BayesianBootstrap:
    """Draws weights for prompts; the same key gives the same weights, so arms that share a key are paired."""

    resamples: Count = 2000
    seed: SeedNumber = 0

    def __post_init__(self) -> None:
        check_arguments(self, "bootstrap")

    def weights(self, key: str, n: int) -> Float[Tensor, "r n"]:
        """Independent Exp(1) weights, one per row and resample."""
        return torch.empty(self.resamples, n, dtype=torch.float64).exponential_(
            generator=self._generator(f"w/{key}/{n}")
        )

    def rate(self, hits: Float[Tensor, "p s"], key: str, arm: str) -> Draws:
        """Mean of `hits` (prompts, seeds), each in 0..1.

        Prompts are drawn, and all seeds of a prompt come with it: what the seeds of one prompt have in
        common is not mistaken for evidence. Arms with the same key are paired prompt by prompt.
        Raises ValueError for no rows and for values outside 0..1.
        """
        hits = hits.double()
        if hits.ndim != 2 or hits.numel() == 0:
            raise ValueError(f"{key}: a rate needs hits (prompts, seeds), found {tuple(hits.shape)}")
        if not bool(((hits >= 0) & (hits <= 1)).all()):
            raise ValueError(f"{key}: hits lie in 0..1, found {float(hits.min())}..{float(hits.max())}")
        prompts, seeds = hits.shape
        weights = self.weights(key, prompts) * seeds
        total = weights.sum(1)
        found = self._with_one_more((weights @ hits.mean(1)) / total, total, float(hits.mean()), hits.numel(), key, arm)
        return replace(found, source=NumberSource("rate", (hits,), key, arm))

    def auroc(
        self, positive: Float[Tensor, "p"], negative: Float[Tensor, "q"], key: str, arm: str,
        groups: tuple[Tensor, Tensor] | None = None,
    ) -> Draws:  # fmt: skip
        """Chance that a positive reading is above a negative one, ties a half; both sides are drawn.

        `groups` numbers from 0, (p,) and (q,), what each reading is of: readings of one thing share its weight, and n
        counts things. Without it each reading is of its own. Raises ValueError where a side is empty.
        """
        if len(positive) == 0 or len(negative) == 0:
            raise ValueError(f"{key}: AUROC needs both sides, found {len(positive)} and {len(negative)} readings")
        above = positive.double()[:, None] - negative.double()[None, :]
        wins = (above > 0).double() + 0.5 * (above == 0).double()
        of, rest = groups if groups is not None else (torch.arange(len(positive)), torch.arange(len(negative)))
        sizes, others_sizes = of.bincount().double(), rest.bincount().double()
        mine = (self.weights(f"{key}/positive", len(sizes)) / sizes)[:, of]
        others = (self.weights(f"{key}/negative", len(others_sizes)) / others_sizes)[:, rest]
        share = ((mine @ wins) * others).sum(1) / (mine.sum(1) * others.sum(1))
        value = float((1 / sizes[of]) @ wins @ (1 / others_sizes[rest])) / (len(sizes) * len(others_sizes))
        fewer = min(len(sizes), len(others_sizes))
        total = mine.sum(1) * (fewer / len(sizes))
        found = self._with_one_more(share, total, value, len(sizes) + len(others_sizes), key, arm)
        return replace(found, source=NumberSource("auroc", (positive, negative, of, rest), key, arm))

    def share(self, values: Float[Tensor, "n"], key: str) -> Draws:
        """The mean of values that are all there are, each measured exactly: only their choice is drawn."""
        weights = self.weights(key, len(values))
        drawn = (weights @ values) / weights.sum(1)
        return Draws(float(values.mean()), drawn, len(values), NumberSource("share", (values,), key))

    def certain(self, value: float, n: int) -> Draws:
        """A number that nothing was drawn for."""
        draws = torch.full((self.resamples,), value, dtype=torch.float64)
        known = torch.tensor([value], dtype=torch.float64)
        return Draws(value, draws, n, NumberSource("certain", (known,), number=n))

    def mean(self, values: Float[Tensor, "n"], key: str) -> tuple[float, float]:
        """95 % interval of the mean of values of any range; the same key pairs."""
        weights = self.weights(key, len(values))
        return percentiles((weights @ values.double()) / weights.sum(1))

    def _with_one_more(self, share: Tensor, total: Tensor, value: float, n: int, key: str, arm: str) -> Draws:
        generator = self._generator(f"one/{key}/{arm}")
        weight = torch.empty_like(total).exponential_(generator=generator)
        # Beta(1/2, 1/2) is the arcsine law: sin² of a uniform angle.
        success = torch.rand(len(total), generator=generator, dtype=total.dtype).mul(math.pi / 2).sin().square()
        return Draws(value, (share * total + success * weight) / (total + weight), n)

    def _generator(self, key: str) -> torch.Generator:
        return torch.Generator().manual_seed((zlib.crc32(key.encode()) << 20) ^ self.seed)


def mean_of(several: Sequence[Draws]) -> Draws:
    """The mean of numbers that were drawn together; n is that of the first."""
    sources = tuple(d.source for d in several)
    known = tuple(s for s in sources if s is not None)
    return Draws(
        sum(d.value for d in several) / len(several),
        torch.stack([d.draws for d in several]).mean(0),
        several[0].n,
        NumberSource("mean", parts=known) if len(known) == len(sources) else None,
    )


def at_least(draws: Draws, floor: float) -> Draws:
    """No draw, and no value, below `floor`."""
    source = None if draws.source is None else NumberSource("floor", parts=(draws.source,), number=floor)
    return Draws(max(draws.value, floor), draws.draws.clamp_min(floor), draws.n, source)


def residual_index(name: str, before: Draws, after: Draws, never: Draws, gap: float) -> Score | None:
    """(after − never taught) / (before − never taught); None where the concept makes no clear difference.

    That is where before − never taught is under `gap`, or its 95 % interval reaches 0: a ratio to nearly
    nothing says nothing. 1 is intact, 0 is never taught; neither the value nor the interval is clipped. n is that of `after`.
    """
    if before.value - never.value < gap:
        return None
    if percentiles(before.draws - never.draws)[0] <= 0:
        return None
    value = (after.value - never.value) / (before.value - never.value)
    draws = (after.draws - never.draws) / (before.draws - never.draws).clamp_min(SMALLEST_DENOMINATOR)
    draws = torch.where(after.draws == before.draws, 1.0, draws)  # whatever the control
    low, high = percentiles(draws)
    return Score(name, value, low, high, after.n, "index", "lower")


def damage_score(name: str, before: Draws, after: Draws) -> Score | None:
    """1 − after / before: the share of what worked that no longer does; None where nothing worked before."""
    if before.value <= 0:
        return None
    draws = 1 - after.draws / before.draws.clamp_min(SMALLEST_DENOMINATOR)
    low, high = percentiles(draws)
    return Score(name, 1 - after.value / before.value, low, high, after.n, "share lost", "lower")


def samples_needed(score: Score, threshold: float) -> int | None:
    """About how many samples would put the interval on one side of `threshold`, if the value stays as it is.

    Interval widths shrink with the square root of n. None where the value is on the threshold, or it
    would take more than a million.
    """
    distance = abs(score.value - threshold)
    half = score.value - score.low if score.value > threshold else score.high - score.value
    if distance == 0 or half <= 0:
        return None
    needed = math.ceil(score.n * (half / distance) ** 2)
    return needed if needed <= 1_000_000 else None
