"""Whether what a trajectory ends in, and the pictures made of it, are numbers."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def finite_or_warned(name: str, latents: Tensor, pictures: Tensor | None = None) -> Tensor:
    """The last of the two, with a warning where a row of either (n, ...) holds a value that is no finite number."""
    made = latents if pictures is None else pictures
    broken = ~made.flatten(1).isfinite().all(1)
    if bool(broken.any()):
        inside = bool((~latents.flatten(1).isfinite().all(1))[broken].any())
        what = "latents" if pictures is None else "pictures"
        where = (
            "already the latents do: the denoiser overflows"
            if inside
            else "the latents are finite: the autoencoder overflows"
        )
        warnings.warn(
            f"{name}: {int(broken.sum())} of {len(made)} {what} hold values that are no finite numbers, and nothing can be seen in "
            f"them; {where} in {torch.finfo(latents.dtype).dtype}. Load the subject in a wider dtype (bfloat16, float32); if an "
            "erasure or an attack is on, make it weaker",
            RuntimeWarning,
            stacklevel=3,
        )
    return made
