"""Intervals of 95 %: Wilson's of a rate, Newcombe's of a difference of two, and percentiles of drawn values."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

Z = 1.959964
"""Standard normal deviate that 2.5 % lie above."""
USUAL_ERROR = 0.05
"""How often an interval may miss, both sides together, where nothing else is said."""


def deviate(error: float = USUAL_ERROR) -> float:
    """The standard normal deviate that half of `error` lies above."""
    return Z if error == USUAL_ERROR else NormalDist().inv_cdf(1 - error / 2)


def wilson(rate: float, n: int) -> tuple[float, float]:
    """Wilson's interval of a rate of n trials: unlike a bootstrap, it has a width at 0 and at 1, and holds the rate."""
    middle = (rate + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(rate * (1 - rate) / n + Z * Z / (4 * n * n))
    low = 0.0 if rate == 0 else max(0.0, middle - half)  # exactly, whatever the rounding of the formula
    return low, 1.0 if rate == 1 else min(1.0, middle + half)


def newcombe(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float]:
    """Interval of the difference first - second of two rates, each with its n: a hybrid of their Wilson intervals.

    Newcombe (1998), method 10.
    """
    (a, b), (below, above) = (first[0], second[0]), zip(wilson(*first), wilson(*second), strict=True)
    low = a - b - ((a - below[0]) ** 2 + (above[1] - b) ** 2) ** 0.5
    high = a - b + ((above[0] - a) ** 2 + (b - below[1]) ** 2) ** 0.5
    return max(-1.0, low), min(1.0, high)


def percentiles(draws: Tensor, error: float = USUAL_ERROR) -> tuple[float, float]:
    """The percentiles of draws (r,) that half of `error` lies below and above: by default 2.5 % and 97.5 %."""
    ends = torch.tensor([error / 2, 1 - error / 2], dtype=draws.dtype, device=draws.device)
    low, high = torch.quantile(draws, ends).tolist()
    return low, high


def ratio_percentiles(draws: Tensor) -> tuple[float, float]:
    """`percentiles` of a ratio, without the draws (r,) in which it had no denominator."""
    return percentiles(draws[torch.isfinite(draws)])
