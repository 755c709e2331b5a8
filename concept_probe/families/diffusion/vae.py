"""Pictures and the latents of a pipeline's autoencoder, in the units that its denoiser works in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from concept_probe.families.diffusion.latents import as_pictures, as_read, of_autoencoder, of_denoiser
from concept_probe.families.state import eager


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Latents (n, c, h, w) in the denoiser's units to pictures, float32 (n, 3, h, w) in 0..1; NaN where it overflows."""
    pixels = as_pictures(vae, _run(vae, "decode", of_autoencoder(vae, latents))).float()
    pixels = pixels + 0 * pixels  # an infinity becomes NaN; the clamp would make it black or white
    return (pixels / 2 + 0.5).clamp(0, 1)


def encoded(vae: Any, images: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) in 0..1 to latents in the denoiser's units: the mean of the posterior."""
    encoding = _run(vae, "encode", as_read(vae, images * 2 - 1))
    mean = encoding if isinstance(encoding, Tensor) else encoding.mean  # some make latents and no distribution of them
    return of_denoiser(vae, mean)


class _Method(nn.Module):
    """A method of a module, as the forward pass of one around it."""

    def __init__(self, owner: nn.Module, name: str) -> None:
        super().__init__()
        self.owner, self.name = owner, name

    def forward(self, x: Tensor) -> Any:
        return getattr(self.owner, self.name)(x, return_dict=False)[0]


def _run(vae: Any, name: str, x: Tensor) -> Any:
    """A method of the autoencoder as it is written, and in float32 where its configuration says that it overflows in
    float16: from copies, so that its own weights stay what and where they are."""
    method = _Method(vae, name)
    with eager():
        if vae.dtype != torch.float16 or not getattr(vae.config, "force_upcast", False):
            return method(x.to(vae.dtype))
        tensors = (*method.named_parameters(), *method.named_buffers())
        return functional_call(method, {n: t.float() for n, t in tensors if t.is_floating_point()}, (x.float(),))
