"""Rates over blocks with what they could have been, and their means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from concept_probe.bench.board.scores import ConceptAndSeed, HitsOfN, pooled, table
from concept_probe.evaluation.bayesian import BayesianBootstrap, Draws
from concept_probe.types import Score


def block_rate(
    bootstrap: BayesianBootstrap,
    of: Mapping[ConceptAndSeed, Mapping[str, HitsOfN]],
    kinds: Sequence[str],
    what: str,
    arm: str,
) -> Draws | None:
    """Of hits in several kinds together, a block as one; None where no block has any."""
    counts = [c for block in sorted(of) if (c := pooled(of[block], kinds)) is not None]
    if not counts:
        return None
    drawn = bootstrap.rate(table(counts), what, arm)
    return Draws(sum(h / n for h, n in counts) / len(counts), drawn.draws, sum(n for _, n in counts))


def mean_of_rates(parts: Sequence[Draws]) -> Draws:
    """Draw by draw."""
    draws = torch.stack([d.draws for d in parts]).mean(0)
    return Draws(sum(d.value for d in parts) / len(parts), draws, sum(d.n for d in parts))


def scored(d: Draws, name: str, better: Literal["higher", "lower"]) -> Score:
    """The interval holds the value: where all is right, draws come arbitrarily near to 1 and never reach it."""
    low, high = d.interval()
    return Score(name, d.value, min(low, d.value), max(high, d.value), d.n, "rate", better)
