"""Absorption: a concept's feature stays silent where it should fire, and more specific features write its direction.

Named and measured in arXiv 2409.14507; the fraction for partial absorption is that of SAEBench, arXiv 2503.09532.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.evaluation.bootstrap import bootstrap_mean_interval
from concept_probe.evaluation.intervals import wilson
from concept_probe.find.directions.probes import fit_probe
from concept_probe.find.readout import Readout
from concept_probe.types import Score, SparseCoder

ALIGNED, PARTLY_ALIGNED = 0.025, 0.1
"""Smallest cosine with the probe of a feature that absorbs: alone, or together with others."""
PORTION = 0.4
"""Smallest part of the probe's reading that must come from what absorbs."""
ABSORBERS = 3
"""Features that may absorb together."""
READABLE, FEWEST = 0.6, 10
"""F1 that a probe on the activations must reach, and prompts it must find, before absorption can be judged."""
RANDOM_MAINS = 20
"""Random sets of features that make the control."""


@dataclass(frozen=True)
class Absorption:
    """Of the prompts in which a probe reads the concept: where do other features stand in for its own?"""

    main: tuple[int, ...]
    """The concept's own features."""
    absorbers: tuple[tuple[int, int], ...]
    """(feature, prompts in which it stood in), most first."""
    full: Score
    """Share of prompts in which no main feature fires and one other carries at least 0.4 of the reading."""
    fraction: Score
    """Mean part of the reading that up to three others carry in place of the main features; 0 where they carry
    less than 0.4. The control of both takes random features, as frequent, for the main ones: what a set that has
    nothing to do with the concept would show."""


@dataclass(frozen=True)
class _Reading:
    """What a probe reads in each of p prompts, and how much of it each feature writes."""

    total: Tensor
    """(p,)"""
    parts: Tensor
    """(p, f)"""
    fires: Tensor
    """(p, f) bool"""
    cosine: Tensor
    """(f,) of each decoder row with the probe's direction."""


@torch.no_grad()
def absorption(
    codec: SparseCoder, fit: Readout, test: Readout, main: Sequence[int], *, draws: int = 1000, seed: int = 0
) -> Absorption:
    """How often the concept's `main` features (see `splitting`) are silent while others write its direction.

    The direction is that of a logistic regression on the activations of `fit`. Readings are taken relative to
    the mean of the other prompts of `fit`, in the activations and in the codes, because a probe's direction has
    no zero of its own. Judged on prompts of `test` of the concept in which the probe reads it.

    Raises ValueError where the probe does not read the concept (F1 below 0.6, or in fewer than 10 prompts).
    """
    if not main or not all(0 <= j < codec.width for j in main):
        raise ValueError(f"main features are {list(main)}; give at least one, each below {codec.width}")
    reading = _read(codec, fit, test)
    full, part, by = _judge(reading, torch.tensor(list(main)))
    often = reading.fires.double().mean(0)
    null = torch.tensor(
        [[float(t.double().mean()) for t in _judge(reading, drawn)[:2]] for drawn in _like(often, main, seed)]
    )
    n = len(reading.total)
    chance = null.mean(0).tolist()
    share, mean = float(full.double().mean()), float(part.mean())
    scores = (
        Score("absorption", share, *wilson(share, n), n, "fraction of prompts", "lower", chance[0]),
        Score("absorption fraction", mean, *bootstrap_mean_interval(part, draws, seed), n, "fraction of the reading", "lower", chance[1]),
    )  # fmt: skip
    counted = Counter(by[full].tolist()).most_common()
    return Absorption(tuple(main), tuple(counted), *scores)


def _read(codec: SparseCoder, fit: Readout, test: Readout) -> _Reading:
    probe = fit_probe(fit.x, fit.concept)
    called = probe(test.x) > 0
    right = int((called & test.concept).sum())
    f1 = 2 * right / max(1, 2 * right + int((called ^ test.concept).sum()))
    direction = probe.weight / torch.linalg.vector_norm(probe.weight)
    zero = fit.x[~fit.concept].double().mean(0)
    total = (test.x.double() - zero) @ direction
    read = called & test.concept & (total > 0)
    if f1 < READABLE or int(read.sum()) < FEWEST:
        raise ValueError(
            f"a probe at {codec.site} reads the concept with F1 {f1:.2f}, in {int(read.sum())} test prompts; absorption "
            f"needs F1 {READABLE} and {FEWEST} prompts: give more prompts, or another site"
        )
    rows = codec.decoder.detach().double()
    usual = codec.encode(fit.x[~fit.concept]).dense(codec.width).double().mean(0)
    codes = codec.encode(test.x[read]).dense(codec.width).double()
    written = rows @ direction
    cosine = written / torch.linalg.vector_norm(rows, dim=1).clamp_min(1e-12)
    return _Reading(total[read], (codes - usual) * written, codes > 0, cosine)


def _judge(reading: _Reading, main: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per prompt: whether it is absorbed in full (p,), the absorbed fraction (p,), and by which feature (p,)."""
    own = reading.parts[:, main].sum(1)
    others = reading.parts.clone()
    others[:, main] = 0
    alone = torch.where(reading.cosine >= ALIGNED, others, 0).max(1)
    silent = ~reading.fires[:, main].any(1)
    full = silent & (alone.values >= PORTION * reading.total)
    together = torch.where(reading.cosine >= PARTLY_ALIGNED, others, 0).clamp_min(0)
    stood_in = together.topk(min(ABSORBERS, together.shape[1]), dim=1).values.sum(1)
    missing = torch.minimum(stood_in, reading.total - own)
    part = torch.where(own <= 0, 1.0, missing / (missing + own).clamp_min(1e-12))
    counts = (own < reading.total) & (stood_in >= PORTION * reading.total)
    return full, torch.where(counts, part, 0).clamp(0, 1), alone.indices


def _like(often: Tensor, main: Sequence[int], seed: int) -> list[Tensor]:
    """Random sets of other features, each about as frequent as the main feature whose place it takes."""
    generator = torch.Generator().manual_seed(seed)
    others = torch.ones(len(often), dtype=torch.bool)
    others[list(main)] = False
    pool = others.nonzero()[:, 0]
    near = [pool[(often[pool] - often[j]).abs().argsort(stable=True)[:RANDOM_MAINS]] for j in main]

    def pick(some):
        return some[torch.randint(len(some), (), generator=generator)]

    return [torch.stack([pick(some) for some in near]) for _ in range(RANDOM_MAINS)]
