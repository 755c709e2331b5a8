"""The plain bootstrap: over prompts, or over features."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.evaluation.intervals import percentiles
from concept_probe.registry import check_choice
from concept_probe.types import Better, Score

AT_ONCE = 2**23
"""Largest number of drawn values in memory."""


def bootstrap_counts(n: int, draws: int, seed: int) -> Tensor:
    """(draws, n) float64: how often each of n prompts is in each sample of n drawn with replacement."""
    picks = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, picks, torch.ones(draws, n, dtype=torch.float64))


def bootstrap_mean_interval(values: Tensor, draws: int, seed: int) -> tuple[float, float]:
    """Bootstrap interval of the mean of values (n,); memory does not grow with `draws`."""
    values, n = values.double().cpu(), len(values)
    generator = torch.Generator().manual_seed(seed)
    means = []
    for start in range(0, draws, step := max(1, AT_ONCE // n)):
        picks = torch.randint(n, (min(step, draws - start), n), generator=generator)
        means.append(values[picks].mean(1))
    return percentiles(torch.cat(means))


def mean_score(
    x: Float[Tensor, "n"],
    name: str,
    *,
    control: float | None = None,
    better: Better = "none",
    unit: str = "",
    resamples: int = 1000,
    seed: int = 0,
) -> Score:
    """Mean of n values with a 95 % bootstrap interval."""
    if not len(x):
        raise ValueError(f"{name}: no values to average")
    check_choice(better, Better, "better")
    interval = bootstrap_mean_interval(x, resamples, seed)
    return Score(name, float(x.double().cpu().mean()), *interval, len(x), unit, better, control)
