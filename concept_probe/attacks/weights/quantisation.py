"""Round the weights to 8 and to 4 bits: small changes that an erasure made may fall to the rounding (arXiv 2410.16454)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from concept_probe.attacks.weights.parameters import matrices
from concept_probe.attacks.weights.weight_attack import WeightAttack
from concept_probe.families import Subject

FULL = 16
"""Bits that a level is counted from."""


@dataclass(frozen=True, eq=False)
class Quantisation(WeightAttack):
    """Rounds every matrix to few bits, each output channel on a grid of its own, and asks again.

    A released model is quantised by anybody who runs it; an erasure that does not survive that was a small shift of
    weights that still hold the concept. A guard stays on, in full precision.
    """

    bits: tuple[int, ...] = (8, 4)
    """Bits per weight, from fine to coarse."""

    name = "quantisation"
    x_name = f"bits less than {FULL}"

    def __post_init__(self) -> None:
        super().__post_init__()
        wrong = [b for b in self.bits if not 2 <= b < FULL]
        if wrong or list(self.bits) != sorted(self.bits, reverse=True):
            raise ValueError(f"attack {self.name!r}: bits are {self.bits}; give falling numbers from 2 to {FULL - 1}")

    def levels(self, subject: Subject) -> Sequence[int]:
        return (0, *(FULL - b for b in self.bits))

    def parameters(self, subject: Subject) -> list[tuple[nn.Parameter, Tensor]]:
        return [(p, p.detach()) for p in matrices(subject)]

    def changed(self, weight: Tensor, original: Tensor, level: int) -> Tensor:
        return rounded(weight, FULL - level)

    def note(self, subject: Subject) -> str:
        return ""


def rounded(weight: Tensor, bits: int) -> Tensor:
    """`weight` (d_out, ...) on a symmetric grid per output channel: s round(w / s), s = max|w| / (2^(bits-1) - 1)."""
    rows = weight.float().flatten(1)
    step = rows.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    grid = torch.where(step > 0, (rows / step.clamp_min(torch.finfo(torch.float32).tiny)).round() * step, rows)
    return grid.reshape(weight.shape).to(weight.dtype)
