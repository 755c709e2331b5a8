"""Latents of a denoiser and latents of its autoencoder: the units of one in those of the other, and the shapes.

A denoiser's latents are maps (n, c, h, w) with about unit variance, whatever its autoencoder makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from torch import Tensor


def of_autoencoder(vae: Any, latents: Tensor) -> Tensor:
    """Latents (n, c, h, w) of the denoiser as the autoencoder decodes them."""
    return _form(vae).to_own(vae, latents)


def of_denoiser(vae: Any, mean: Tensor) -> Tensor:
    """What the autoencoder makes of pictures, as the denoiser has it: (n, c, h, w)."""
    return _form(vae).from_own(vae, mean)


def as_pictures(vae: Any, decoded: Tensor) -> Tensor:
    """What the autoencoder decodes, as pictures (n, 3, h, w): some make films of one frame."""
    return decoded[:, :, 0] if _form(vae).films else decoded


def as_read(vae: Any, pictures: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) as the autoencoder encodes them."""
    return pictures[:, :, None] if _form(vae).films else pictures


@dataclass(frozen=True)
class _Form:
    to_own: Callable[[Any, Tensor], Tensor]
    from_own: Callable[[Any, Tensor], Tensor]
    films: bool = False
    """Whether it works on (n, c, frames, h, w)."""


def _plain(vae: Any, x: Tensor) -> Tensor:
    shift, scale = _units(vae, x)
    return x * scale + shift


def _from_plain(vae: Any, mean: Tensor) -> Tensor:
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
    column, scale = (1, -1, 1, 1), getattr(vae.config, "scaling_factor", None) or 1.0
    return like.new_tensor(mean).view(column), like.new_tensor(std).view(column) / scale


def _from_patches(vae: Any, x: Tensor) -> Tensor:
    mean, std = _statistics(vae, x)
    return rearrange(x * std + mean, "n (c i j) h w -> n c (h i) (w j)", i=2, j=2)


def _to_patches(vae: Any, mean: Tensor) -> Tensor:
    patches = rearrange(mean, "n c (h i) (w j) -> n (c i j) h w", i=2, j=2)
    shift, std = _statistics(vae, patches)
    return (patches - shift) / std


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of a 2 x 2 patch, which this autoencoder keeps as a batch norm."""
    column = (1, -1, 1, 1)
    variance = vae.bn.running_var.view(column) + vae.config.batch_norm_eps
    return vae.bn.running_mean.view(column).to(like), variance.sqrt().to(like)


_PLAIN = _Form(_plain, _from_plain)
LATENT_FORMS: Mapping[str, _Form] = {
    "AutoencoderKLFlux2": _Form(_from_patches, _to_patches),
    "AutoencoderKLQwenImage": _Form(
        lambda vae, x: _plain(vae, x)[:, :, None], lambda vae, mean: _from_plain(vae, mean[:, :, 0]), films=True
    ),
}
"""Class name of an autoencoder to its form; one that is not here keeps its latents as the denoiser has them, in other
units."""


def _form(vae: Any) -> _Form:
    return LATENT_FORMS.get(type(vae).__name__, _PLAIN)
