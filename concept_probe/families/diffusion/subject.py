"""What every family that makes pictures by denoising promises."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from concept_probe.families.diffusion.trajectory import SamplingHook
from concept_probe.families.subject import Subject
from concept_probe.types import Prompt


class DiffusionSubject(Subject[Tensor]):
    """A subject that makes pictures by denoising latents."""

    answers = "pictures"

    def __init__(self, name: str, components: Mapping[str, nn.Module], pipeline: Any = None) -> None:
        super().__init__(name, components, pipeline)
        self.hooks: tuple[SamplingHook, ...] = ()
        """What acts on trajectories from noise to pictures, in its order; see `hooked`."""

    @contextmanager
    def hooked(self, hook: SamplingHook) -> Iterator[None]:
        """Let `hook` act on every trajectory that starts inside; taps meet each pass of the denoiser as ever."""
        before = self.hooks
        self.hooks = (*before, hook)
        try:
            yield
        finally:
            self.hooks = before

    def stamp(self) -> tuple[object, ...]:
        return (*super().stamp(), self.hooks)

    @property
    @abc.abstractmethod
    def latent_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of the latents of one picture."""

    @abc.abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (n, c, h, w) as the denoiser has them to pictures, float32 (n, 3, h, w) in 0..1."""

    @abc.abstractmethod
    def latents(self, images: Tensor, *, batch: int = 64) -> Tensor:
        """Encode pictures (n, 3, h, w) in 0..1 to latents in the denoiser's units: the mean of the posterior."""

    @abc.abstractmethod
    def denoising_loss(self, latents: Tensor, prompts: Sequence[Prompt], generator: torch.Generator) -> Tensor:
        """Mean squared error of the denoiser at random timesteps and noise, a scalar with gradients."""
