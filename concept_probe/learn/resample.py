"""Bootstrap over prompts."""

from __future__ import annotations

import torch
from torch import Tensor


def resample(n: int, draws: int, seed: int) -> Tensor:
    """(draws, n) float64: how often each of n prompts is in each sample of n drawn with replacement."""
    picks = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, picks, torch.ones(draws, n, dtype=torch.float64))


def low_high(samples: Tensor) -> tuple[float, float]:
    """The 2.5 % and 97.5 % percentiles of samples (draws,); draws in which a ratio had no denominator are left out."""
    low, high = torch.quantile(samples[torch.isfinite(samples)], samples.new_tensor([0.025, 0.975])).tolist()
    return low, high
