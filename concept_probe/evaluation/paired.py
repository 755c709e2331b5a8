"""Whether two erasers differ: paired sign-flip tests, and Holm's correction for asking many times."""

from __future__ import annotations

from collections.abc import Sequence

import torch

EXACT = 16
"""Up to so many pairs every way to flip signs is tried; beyond, `DRAWN` random ones."""
DRAWN = 100_000


def sign_flip(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p of the mean of paired differences, if each had its sign by chance; 1 where there is none.

    With n pairs it is never under 2 / 2ⁿ (Fisher 1935, Pitman 1937).
    """
    x = torch.tensor(list(differences), dtype=torch.float64)
    n = len(x)
    if n == 0 or not bool((x != 0).any()):
        return 1.0
    seen = x.sum().abs() - 1e-9
    if n <= EXACT:
        bits = torch.arange(2**n)[:, None].bitwise_right_shift(torch.arange(n)) % 2
        return float(((bits * 2 - 1).double() @ x).abs().ge(seen).double().mean())
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (DRAWN, n), generator=generator).double() * 2 - 1
    return float(((signs @ x).abs().ge(seen).sum() + 1) / (DRAWN + 1))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p values in the order given: reject where under α, and the chance of any false one is at most α.

    Holm (1979): the i-th smallest of m times m − i + 1, made monotone, at most 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    out, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, ps[i] * (len(ps) - rank)))
        out[i] = largest
    return out
