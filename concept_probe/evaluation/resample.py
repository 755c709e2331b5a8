"""Bootstrap over prompts, and over features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

AT_ONCE = 2**23
"""Largest number of drawn values in memory."""


def resample(n: int, draws: int, seed: int) -> Tensor:
    """(draws, n) float64: how often each of n prompts is in each sample of n drawn with replacement."""
    picks = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, picks, torch.ones(draws, n, dtype=torch.float64))


def low_high(samples: Tensor) -> tuple[float, float]:
    """The 2.5 % and 97.5 % percentiles of samples (draws,); draws in which a ratio had no denominator are left out."""
    low, high = torch.quantile(samples[torch.isfinite(samples)], samples.new_tensor([0.025, 0.975])).tolist()
    return low, high


def share_interval(hits: Tensor) -> tuple[float, float]:
    """Wilson's 95 % interval of the share of True in hits (n,): unlike a bootstrap, it has a width at 0 and at 1."""
    n, share, z = len(hits), float(hits.double().mean()), 1.959964
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def mean_interval(values: Tensor, draws: int, seed: int) -> tuple[float, float]:
    """Bootstrap interval of the mean of values (n,); memory does not grow with `draws`."""
    values, n = values.double().cpu(), len(values)
    generator = torch.Generator().manual_seed(seed)
    means = []
    for start in range(0, draws, step := max(1, AT_ONCE // n)):
        picks = torch.randint(n, (min(step, draws - start), n), generator=generator)
        means.append(values[picks].mean(1))
    return low_high(torch.cat(means))
