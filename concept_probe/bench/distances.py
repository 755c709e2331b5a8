"""How far pictures moved: pixel by pixel on the same noise, and as a set in a recogniser's features."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class SeesFeatures(Protocol):
    """A recogniser that shows what it saw before it decided."""

    def features(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]: ...


def pixel_distance(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> float:
    """Mean absolute difference of pictures in 0..1 of the same prompts and noise: 0 the same, 1 black for white.

    Raises ValueError for other shapes or no picture.
    """
    if a.shape != b.shape or not len(a):
        raise ValueError(
            f"paired pictures have one shape and are not none; found {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return float((a.float() - b.float()).abs().nan_to_num(nan=1.0).mean())


def mmd(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """Squared maximum mean discrepancy of two sets of features, unbiased: about 0 for sets of one kind, at most 2.

    As CMMD (arXiv 2401.09603) it is unbiased at any number of pictures, which a Fréchet distance is not, with a
    Gaussian kernel on rows of norm 1; the width is the median distance within `a`. Raises ValueError for fewer than
    two rows a side.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a discrepancy needs two rows a side, found {len(a)} and {len(b)}")
    a, b = (torch.nn.functional.normalize(x.double().nan_to_num(), dim=1) for x in (a, b))
    n, m = len(a), len(b)
    inside = torch.pdist(a)
    width = inside.median().clamp_min(1e-6)
    kernel = lambda d: torch.exp(-d.square() / (2 * width.square()))  # noqa: E731
    same = 2 * kernel(inside).sum() / (n * (n - 1)) + 2 * kernel(torch.pdist(b)).sum() / (m * (m - 1))
    return float(same - 2 * kernel(torch.cdist(a, b)).mean())
