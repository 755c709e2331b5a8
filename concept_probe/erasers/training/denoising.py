"""The loss that a diffusion model was trained on, of given images: attacks descend it, and few-shot unlearning climbs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.types import Prompt

if TYPE_CHECKING:
    from concept_probe.families import DiffusionSubject


def denoising_loss(subject: DiffusionSubject, images: Tensor, prompts: Sequence[Prompt], batch: int) -> DrawnLoss:
    """The denoising loss of a batch of `images` (n, 3, h, w) under `prompts`, drawn independently of each other.

    Noise and timesteps are drawn anew each time.
    """
    with torch.no_grad():
        latents = subject.latents(images.to(subject.device, subject.dtype))

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(latents), (batch,), generator=generator)
        texts = torch.randint(len(prompts), (batch,), generator=generator).tolist()
        return subject.denoising_loss(latents[rows.to(latents.device)], [prompts[i] for i in texts], generator)

    return loss
