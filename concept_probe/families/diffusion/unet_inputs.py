"""What a U-Net reads besides latents, time and text: sizes and scores, a weight of guidance, a mask."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from concept_probe.types import Branch

AESTHETIC = {"cond": 6.0, "uncond": 2.5}
"""The score of beauty that a refiner is told, by the branch of guidance, as its pipeline tells it."""


def guidance_embedding(w: Tensor, width: int) -> Tensor:
    """Sines and cosines (n, width), float32, of weights w (n,) of guidance, less 1 (arXiv 2310.04378, after 2210.03142).

    The scales are 1000 · 10000^(-i / (h - 1)), i = 0 .. h - 1, h half the width.
    """
    half = width // 2
    scales = torch.exp(torch.arange(half, device=w.device, dtype=torch.float32) * (-math.log(10000.0) / (half - 1)))
    angles = (w.float() * 1000.0)[:, None] * scales
    return pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))


def size_ids(size: tuple[int, int], like: Tensor) -> Tensor:
    """(n, 6): original size, place of the crop and target size of each of n pictures (arXiv 2307.01952, section 2.2)."""
    ids = torch.tensor([[*size, 0, 0, *size]], device=like.device, dtype=like.dtype)
    return ids.expand(len(like), -1)


def score_ids(size: tuple[int, int], like: Tensor, branches: Sequence[Branch]) -> Tensor:
    """(n, 5): original size, place of the crop, and the score of beauty that is asked for in each row's branch."""
    rows = [[*size, 0, 0, AESTHETIC[branch]] for branch in branches]
    return torch.tensor(rows, device=like.device, dtype=like.dtype)


def painted_in(latents: Tensor, masked: Tensor) -> Tensor:
    """(n, 2c + 1, h, w): latents (n, c, h, w), a mask that covers everything, and what is left uncovered, (1, c, h, w)."""
    mask = torch.ones_like(latents[:, :1])
    return torch.cat([latents, mask, masked.to(latents).expand(len(latents), -1, -1, -1)], dim=1)
