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


def pixel_distance(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "m 3 h w"]) -> float:
    """Mean absolute difference of pictures in 0..1 of the same prompts and noise: 0 the same, 1 black for white.

    Raises ValueError for other shapes or no picture.
    """
    if a.shape != b.shape or not len(a):
        raise ValueError(
            f"paired pictures have one shape and are not none; found {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return float((a.float() - b.float()).abs().nan_to_num(nan=1.0).mean())


def frechet(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """Squared Fréchet distance of the Gaussians with the means and covariances of two sets (arXiv 1706.08500, eq. 6).

    |m1 − m2|² + tr(S1 + S2 − 2 (S1 S2)^½). With fewer rows than features it is mostly bias: read it beside that of two
    sets of one kind and size. The trace of the root is the sum of the singular values of X Yᵀ, with S1 = XᵀX, S2 = YᵀY.
    Raises ValueError for fewer than two rows a side.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a Fréchet distance needs two rows a side, found {len(a)} and {len(b)}")
    a, b = (x.double().nan_to_num() for x in (a, b))
    x, y = ((z - z.mean(0)) / (len(z) - 1) ** 0.5 for z in (a, b))
    root = torch.linalg.svdvals(x @ y.mT).sum()
    found = (a.mean(0) - b.mean(0)).square().sum() + x.square().sum() + y.square().sum() - 2 * root
    return max(0.0, float(found))  # rounding alone takes it under 0


def cmmd(a: Float[Tensor, "n e"], b: Float[Tensor, "m e"]) -> float:
    """CMMD of two sets of CLIP embeddings (arXiv 2401.09603): 1000 times the squared discrepancy with kernel width 10.

    Unbiased, so that it may fall under 0. Raises ValueError for fewer than two rows a side.
    """
    return 1000 * mmd(a, b, width=10.0)


def mmd(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], width: float | None = None) -> float:
    """Squared maximum mean discrepancy of two sets of features, unbiased: about 0 for sets of one kind, at most 2.

    As CMMD (arXiv 2401.09603) it is unbiased at any number of pictures, which a Fréchet distance is not, with a
    Gaussian kernel on rows of norm 1, of this `width`; None: the median distance within `a`. Raises ValueError for
    fewer than two rows a side.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a discrepancy needs two rows a side, found {len(a)} and {len(b)}")
    a, b = (torch.nn.functional.normalize(x.double().nan_to_num(), dim=1) for x in (a, b))
    n, m = len(a), len(b)
    inside = torch.pdist(a)
    scale = inside.median().clamp_min(1e-6) if width is None else inside.new_tensor(width)

    def kernel(d):
        return torch.exp(-d.square() / (2 * scale.square()))

    same = 2 * kernel(inside).sum() / (n * (n - 1)) + 2 * kernel(torch.pdist(b)).sum() / (m * (m - 1))
    return float(same - 2 * kernel(torch.cdist(a, b)).mean())
