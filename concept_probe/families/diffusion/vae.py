"""Pictures and the latents of a pipeline's autoencoder, in the units that its denoiser works in."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Latents (n, c, h, w) in the denoiser's units to pictures, float32 (n, 3, h, w) in 0..1."""
    shift, scale = _units(vae, latents)
    pixels = vae.decode((latents * scale + shift).to(vae.dtype), return_dict=False)[0]
    return (pixels.float() / 2 + 0.5).clamp(0, 1)


def encoded(vae: Any, images: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) in 0..1 to latents in the denoiser's units: the mean of the posterior."""
    mean = vae.encode((images * 2 - 1).to(vae.dtype)).latent_dist.mean
    shift, scale = _units(vae, mean)
    return (mean - shift) / scale


def _units(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and scale that turn the denoiser's latents into the autoencoder's.

    An autoencoder's latents have a mean and a standard deviation per channel, or one shift (none: 0) and one scale.
    """
    mean, std = getattr(vae.config, "latents_mean", None), getattr(vae.config, "latents_std", None)
    if mean is None or std is None:
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        return like.new_tensor(shift), like.new_tensor(1 / vae.config.scaling_factor)
    column = (1, -1, 1, 1)
    return like.new_tensor(mean).view(column), like.new_tensor(std).view(column) / vae.config.scaling_factor
