"""Attacks that start the walk from pictures of the concept, or disturb it: what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from concept_probe.types import Prompt

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from concept_probe.families import Subject
    from concept_probe.families.diffusion.trajectory import SamplingHook, Trajectory
    from concept_probe.families.text.conditioning import Conditioning


@runtime_checkable
class Walker(Protocol):
    """What attacks on latents ask of a subject, beyond what every subject has."""

    pipeline: Any

    @property
    def latent_shape(self) -> tuple[int, int, int]: ...
    def latents(self, images: Tensor) -> Tensor: ...
    def hooked(self, hook: SamplingHook) -> AbstractContextManager[None]: ...
    def predict(self, seen: Tensor, timesteps: Tensor, condition: Conditioning) -> Tensor: ...
    def decode(self, latents: Tensor) -> Tensor: ...


def walker(subject: Subject, attack: str) -> Walker:
    """The subject as a diffusion pipeline. Raises TypeError for one that makes no pictures."""
    if not isinstance(subject, Walker):
        raise TypeError(
            f"attack {attack!r}: {subject.name!r} makes no pictures by denoising, so it has no walk to steer"
        )
    return subject


def own_noise(walk: Trajectory) -> Tensor:
    """Fresh noise (b, c, h, w), each row from its own source, so that neighbours in the batch change nothing."""
    rows = [torch.randn(walk.latents.shape[1:], generator=source) for source in walk.sources]
    return torch.stack(rows).to(walk.latents)


def nameless(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """The prompts that name nothing, or the empty one where all of them do."""
    return tuple(p for p in prompts if p.subject is None) or (Prompt(""),)
