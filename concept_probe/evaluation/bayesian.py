"""A Bayesian bootstrap over prompts, paired between the arms of an audit, that knows that n is finite.

A plain bootstrap of 20 failures out of 20 has no width. Here every set of n rows has one row more, of
weight 1, that is a success with a share drawn from Beta(1/2, 1/2): for a plain rate the draws are then
exactly those of the Jeffreys posterior Beta(h + 1/2, n − h + 1/2).

Where intervals are looked at more than once they have to hold at a small error with few rows. A `careful` bootstrap takes
the row more for a whole prompt, and for a failure at the lower end of an interval, for a success at the upper: for a plain
rate those are the bounds of Clopper and Pearson, for other shares those of Gaffke (2005), which know no law but 0..1.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.arguments import Bounds, Count, SeedNumber, check_arguments
from concept_probe.evaluation.intervals import USUAL_ERROR, percentiles
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
    error: float = USUAL_ERROR
    """How often its interval, and that of an index of it, may miss."""
    ends: tuple[Float[Tensor, "r"], Float[Tensor, "r"]] | None = None
    """What the lower and the upper end of an interval are read off, where that is not `draws`."""

    def interval(self) -> tuple[float, float]:
        low, high = self.ends or (self.draws, self.draws)
        return percentiles(low, self.error)[0], percentiles(high, self.error)[1]

    def score(self, name: str, unit: str = "", better: str = "none", control: float | None = None) -> Score:
        low, high = self.interval()
        return Score(name, self.value, low, high, self.n, unit, better, control)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class BayesianBootstrap:
    """Draws weights for prompts; the same key gives the same weights, so arms that share a key are paired."""

    resamples: Count = 2000
    seed: SeedNumber = 0
    error: Annotated[float, Bounds(1e-6, 0.5)] = USUAL_ERROR
    """How often an interval may miss, both sides together."""
    careful: bool = False
    """Whether intervals hold at any error, however few rows there are, also where all seeds of a prompt agree."""

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
        row = float(seeds) if self.careful else 1.0
        share = (weights @ hits.mean(1)) / total
        found = self._with_one_more(share, total, float(hits.mean()), hits.numel(), f"{key}/{arm}", row)
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
        found = self._with_one_more(share, total, value, len(sizes) + len(others_sizes), f"{key}/{arm}")
        return replace(found, source=NumberSource("auroc", (positive, negative, of, rest), key, arm))

    def share(self, values: Float[Tensor, "n"], key: str) -> Draws:
        """The mean of values that are all there are, each measured exactly: only their choice is drawn."""
        weights = self.weights(key, len(values))
        drawn = (weights @ values) / weights.sum(1)
        return Draws(float(values.mean()), drawn, len(values), NumberSource("share", (values,), key), self.error)

    def certain(self, value: float, n: int) -> Draws:
        """A number that nothing was drawn for."""
        draws = torch.full((self.resamples,), value, dtype=torch.float64)
        known = torch.tensor([value], dtype=torch.float64)
        return Draws(value, draws, n, NumberSource("certain", (known,), number=n), self.error)

    def mean(self, values: Float[Tensor, "n"], key: str) -> tuple[float, float]:
        """Interval of the mean of values of any range; the same key pairs."""
        weights = self.weights(key, len(values))
        return percentiles((weights @ values.double()) / weights.sum(1), self.error)

    def _with_one_more(self, share: Tensor, total: Tensor, value: float, n: int, key: str, row: float = 1) -> Draws:
        """Draws with a row more of weight `row`; `key` names the number and its arm."""
        generator = self._generator(f"one/{key}")
        weight = torch.empty_like(total).exponential_(generator=generator) * row
        # Beta(1/2, 1/2) is the arcsine law: sin² of a uniform angle.
        success = torch.rand(len(total), generator=generator, dtype=total.dtype).mul(math.pi / 2).sin().square()
        low, middle, high = ((share * total + of * weight) / (total + weight) for of in (0, success, 1))
        return Draws(value, middle, n, None, self.error, (low, high) if self.careful else None)

    def _generator(self, key: str) -> torch.Generator:
        return torch.Generator().manual_seed((zlib.crc32(key.encode()) << 20) ^ self.seed)


def mean_of(several: Sequence[Draws]) -> Draws:
    """The mean of numbers that were drawn together; n is that of the first."""
    sources = tuple(d.source for d in several)
    known = tuple(s for s in sources if s is not None)
    ends = [d.ends or (d.draws, d.draws) for d in several] if any(d.ends for d in several) else []
    return Draws(
        sum(d.value for d in several) / len(several),
        torch.stack([d.draws for d in several]).mean(0),
        several[0].n,
        NumberSource("mean", parts=known) if len(known) == len(sources) else None,
        several[0].error,
        (torch.stack([low for low, _ in ends]).mean(0), torch.stack([high for _, high in ends]).mean(0))
        if ends
        else None,
    )


def at_least(draws: Draws, floor: float) -> Draws:
    """No draw, and no value, below `floor`."""
    source = None if draws.source is None else NumberSource("floor", parts=(draws.source,), number=floor)
    ends = None if draws.ends is None else (draws.ends[0].clamp_min(floor), draws.ends[1].clamp_min(floor))
    return Draws(max(draws.value, floor), draws.draws.clamp_min(floor), draws.n, source, draws.error, ends)


def residual_index(name: str, before: Draws, after: Draws, never: Draws, gap: float) -> Score | None:
    """(after − never taught) / (before − never taught); None where the concept makes no clear difference.

    That is where before − never taught is under `gap`, or its interval reaches 0: a ratio to nearly
    nothing says nothing. 1 is intact, 0 is never taught; neither the value nor the interval is clipped. n and the error of
    the interval are those of `after`.
    """
    if before.value - never.value < gap:
        return None
    if percentiles(before.draws - never.draws, after.error)[0] <= 0:
        return None
    value = (after.value - never.value) / (before.value - never.value)
    known = (before.draws - never.draws).clamp_min(SMALLEST_DENOMINATOR)

    def index(of: Tensor) -> Tensor:
        draws = (torch.where(after.draws == never.draws, never.draws, of) - never.draws) / known
        return torch.where(after.draws == before.draws, 1.0, draws)  # whatever the control

    low, high = after.ends or (after.draws, after.draws)
    low, high = percentiles(index(low), after.error)[0], percentiles(index(high), after.error)[1]
    return Score(name, value, low, high, after.n, "index", "lower")


def may_have_index(before: Draws, never: Draws, gap: float) -> bool:
    """Whether before − never taught may be `gap` or more, as far as the interval of their difference tells."""
    return percentiles(before.draws - never.draws, before.error)[1] >= gap


def damage_score(name: str, before: Draws, after: Draws) -> Score | None:
    """1 − after / before: the share of what worked that no longer does; None where nothing worked before."""
    if before.value <= 0:
        return None
    worked = before.draws.clamp_min(SMALLEST_DENOMINATOR)
    least, most = (
        torch.where(after.draws == before.draws, before.draws, of) for of in after.ends or (after.draws,) * 2
    )
    low, high = percentiles(1 - most / worked, after.error)[0], percentiles(1 - least / worked, after.error)[1]
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
