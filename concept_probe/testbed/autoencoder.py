"""The AutoencoderKL of the embedded models: 64 x 64 pixels to 8 x 8 latents of 16 channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from concept_probe.testbed.icons import augment, icons
from concept_probe.testbed.loop import FitSchedule, fit

STEPS = 2400


def build_autoencoder() -> AutoencoderKL:
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 16,
        "sample_size": 64,
        "block_out_channels": (16, 32, 64, 96),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "mid_block_add_attention": False,
    }
    return AutoencoderKL(**options)


def train_autoencoder(folder: Path, steps: int = STEPS) -> AutoencoderKL:
    """Train on augmented icons: absolute error of pixels and of their differences, and a small KL term.

    Sets `scaling_factor` so that latents of icons have unit variance.
    """
    model: Any = build_autoencoder()
    pictures = icons().flatten(0, 1)

    def loss(g: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(pictures), (16,), generator=g)
        x = augment(pictures[rows], g, shift=0.08, scale=0.15, turn=0.15, colour=0.15)
        posterior = model.encode(x).latent_dist
        z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=g)
        y = model.decode(z).sample
        edges = sum(F.l1_loss(y.diff(dim=d), x.diff(dim=d)) for d in (-1, -2))
        return F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + 0.5 * edges + 3e-5 * posterior.kl().mean() / 16

    fit("autoencoder", [model], loss, FitSchedule(steps, peak=1.5e-3, seed=1), folder)
    model.requires_grad_(False).eval()
    with torch.no_grad():
        z = model.encode(pictures).latent_dist.mean
    model.register_to_config(scaling_factor=round(1 / float(z.std()), 4))
    return model
