"""What training asks of a diffusion model: latents met on the way from noise to a picture, and predictions at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.types import Moment, Prompt, Query, Sampling

if TYPE_CHECKING:
    from concept_probe.families import Conditioning, DiffusionSubject


@dataclass(frozen=True)
class LatentBuffer:
    """n inputs of the denoiser on its trajectories from noise to pictures."""

    inputs: Tensor
    """(n, c, h, w): latents as the scheduler scales them"""
    timesteps: Tensor
    """(n,), as the denoiser was told them: whole numbers, or fractions where a scheduler steps between those"""
    prompts: tuple[Prompt, ...]
    """What each trajectory was asked for, n of them."""
    passes: Tensor | None = None
    """(n,): the pass of its trajectory that each was met in, where that is known."""

    def rows(self, index: Tensor) -> LatentBuffer:
        prompts = tuple(self.prompts[i] for i in index.tolist())
        passes = None if self.passes is None else self.passes[index]
        return LatentBuffer(self.inputs[index], self.timesteps[index], prompts, passes)

    def __len__(self) -> int:
        return len(self.prompts)


@torch.no_grad()
def collect(
    subject: DiffusionSubject, prompts: Sequence[Prompt], count: int, sampling: Sampling, seed: int
) -> LatentBuffer:
    """What the denoiser sees in every pass of `count` trajectories, prompts in turn, seeds from `seed` on.

    Every pass of a trajectory is a latent at its timestep, so one of them serves `subject.passes(sampling)` latents.
    """
    queries = [Query(prompts[i % len(prompts)], seed + i) for i in range(count)]
    site = subject.sites("denoiser_in")[0]
    inputs, timesteps, passes, asked = [], [], [], []
    for start in range(0, len(queries), sampling.batch):
        batch = queries[start : start + sampling.batch]

        def look(x: Tensor, moment: Moment, batch: Sequence[Query] = batch) -> None:
            rows = moment.conditional
            inputs.append(subject.seen_latents(x)[rows].clone())
            timesteps.append(torch.full((len(rows),), moment.timestep or 0, device=x.device))
            passes.append(torch.full((len(rows),), moment.step or 0, device=x.device))
            asked.extend(batch[moment.prompts[i]].prompt for i in rows)

        with tap(subject, {site: look}):
            subject.run_to([site], batch, sampling)
    return LatentBuffer(torch.cat(inputs), torch.cat(timesteps), tuple(asked), torch.cat(passes))


@torch.no_grad()
def predictions(subject: DiffusionSubject, buffer: LatentBuffer, prompts: Sequence[Prompt], batch: int = 32) -> Tensor:
    """ε(x, p) of each latent x of a buffer, by the subject as it is now, p in `prompts` (n of them): (n, c, h, w)."""
    out = []
    for start in range(0, len(buffer), batch):
        part = slice(start, start + batch)
        condition = encode_distinct(subject, prompts[part])
        out.append(subject.predict(buffer.inputs[part], buffer.timesteps[part], condition))
    return torch.cat(out)


def null_predictions(subject: DiffusionSubject, buffer: LatentBuffer) -> Tensor:
    """ε(x, ∅) of each latent of a buffer (n, c, h, w)."""
    return predictions(subject, buffer, [Prompt("")] * len(buffer))


def extrapolated_predictions(
    subject: DiffusionSubject, buffer: LatentBuffer, start: Sequence[Prompt], end: Sequence[Prompt], eta: float
) -> Tensor:
    """ε(x, a) + η [ε(x, b) - ε(x, a)] of each latent of a buffer (n, c, h, w), a of `start` and b of `end` (n each)."""
    at_start = predictions(subject, buffer, start)
    return at_start + eta * (predictions(subject, buffer, end) - at_start)


def encode_prompts(subject: DiffusionSubject, prompts: Sequence[Prompt]) -> Conditioning:
    """What the denoiser reads of `prompts`, the empty one as guidance has it, which may be zeros; gradients pass."""
    condition = subject.encode(prompts)
    empty = torch.tensor([not prompt.text for prompt in prompts])
    return subject.with_null_text(condition, empty) if empty.any() else condition


def encode_distinct(subject: DiffusionSubject, prompts: Sequence[Prompt]) -> Conditioning:
    """As `encode_prompts`, each distinct prompt read once."""
    distinct = list(dict.fromkeys(prompts))
    place = {prompt: i for i, prompt in enumerate(distinct)}
    index = torch.tensor([place[p] for p in prompts], device=subject.device)
    return encode_prompts(subject, distinct).rows(index)
