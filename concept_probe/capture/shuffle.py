"""A seeded order of n rows that is never written down: constant memory, any position at once."""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 6
_MASK = (1 << 31) - 1


def shuffled(positions: Tensor, n: int, seed: int) -> Tensor:
    """Where each of `positions` (m,) long in 0..n-1 goes under the permutation of n rows that `seed` names.

    A balanced Feistel network over the smallest even number of bits that covers n; a value outside 0..n-1 is
    sent through again until it falls inside (cycle walking), so the map is one to one.
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    generator = torch.Generator("cpu").manual_seed(seed)
    keys = torch.randint(1, _MASK, (_ROUNDS,), generator=generator).tolist()
    out = _feistel(positions, half, keys)
    while bool((outside := out >= n).any()):
        out[outside] = _feistel(out[outside], half, keys)
    return out


def _feistel(x: Tensor, half: int, keys: list[int]) -> Tensor:
    low = (1 << half) - 1
    left, right = x >> half, x & low
    for key in keys:
        mixed = ((right + key) * 0x9E3779B1) & _MASK
        mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & _MASK
        mixed = ((mixed ^ (mixed >> 12)) * 0x297A2D39) & _MASK
        left, right = right, left ^ ((mixed ^ (mixed >> 15)) & low)
    return (left << half) | right
