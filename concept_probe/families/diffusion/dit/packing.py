"""Latents as the patches that a transformer reads, two by two, and back."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor


def packed(latents: Tensor) -> Tensor:
    """(n, c, 2 h, 2 w) -> (n, h w, 4 c), a patch's channels channel first, as FLUX orders them."""
    return rearrange(latents, "n c (h i) (w j) -> n (h w) (c i j)", i=2, j=2)


def unpacked(patches: Tensor, height: int, width: int) -> Tensor:
    """`packed` undone: (n, h w, 4 c) -> (n, c, height, width), whose sizes are 2 h and 2 w."""
    return rearrange(patches, "n (h w) (c i j) -> n c (h i) (w j)", h=height // 2, w=width // 2, i=2, j=2)


def patch_places(height: int, width: int, *, like: Tensor) -> Tensor:
    """(h w, 3): 0, row and column of each of `height` x `width` patches, which rotary embeddings turn by."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).to(like)


def patch_lengths(x: Tensor) -> Tensor:
    """The Euclidean length of each 2 x 2 patch of (n, c, h, w), at each of its values."""
    patches = packed(x)
    return unpacked(patches.norm(dim=-1, keepdim=True).expand_as(patches), *x.shape[-2:])
