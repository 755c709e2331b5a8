"""Attacks that start the walk from pictures of the concept, or disturb it: what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.types import Prompt

if TYPE_CHECKING:
    from concept_probe.families.diffusion.trajectory import Trajectory


def own_noise(walk: Trajectory) -> Tensor:
    """Fresh noise (b, c, h, w), each row from its own source, so that neighbours in the batch change nothing."""
    rows = [torch.randn(walk.latents.shape[1:], generator=source) for source in walk.sources]
    return torch.stack(rows).to(walk.latents)


def nameless(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """The prompts that name nothing, or the empty one where all of them do."""
    return tuple(p for p in prompts if p.subject is None) or (Prompt(""),)
