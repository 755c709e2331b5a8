"""What some autoencoders do to each row before they encode it, and to what they write: no weights can stand for it."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from concept_probe.types import RowUnits

RowNorm = Literal["none", "layer_norm", "constant_norm_rescale"]
"""`layer_norm`: (x - mean) / (std + 1e-5), with std over d - 1; `constant_norm_rescale`: x √d / |x|. Names of sae-lens."""
ROW_NORMS: tuple[RowNorm, ...] = get_args(RowNorm)
_EPS = 1e-5


def normalised(x: Tensor, how: RowNorm) -> tuple[Tensor, RowUnits | None]:
    """Rows (..., d) as they are encoded, and the units that lead back; None where rows stay as they are."""
    if how == "none":
        return x, None
    if how == "layer_norm":
        mean = x.mean(-1, keepdim=True)
        std = (x - mean).std(-1, keepdim=True)
        return (x - mean) / (std + _EPS), RowUnits(std, mean)
    size = (x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5).clamp_min(1e-30)
    return x / size, RowUnits(size)
