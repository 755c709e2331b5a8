"""All but One: rewrite the concept's guidance term, and hold the unconditional prediction still (arXiv 2312.12807)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from concept_probe.erasers.closed_form.destinations import destinations_of, texts_of
from concept_probe.erasers.closed_form.states import prompts_to_erase
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import (
    TINY_TRAINING,
    Training,
    distilled_edit,
    retain_only,
    retain_terms,
)
from concept_probe.erasers.finetune.parts import DenoiserPart, denoiser_parameters
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import StepLoss
from concept_probe.erasers.training.replay import LatentBuffer, collect, encode_distinct, null_predictions, predictions
from concept_probe.erasers.training.trainable import FullWeights
from concept_probe.families import DiffusionSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Subspace, evenly


def in_window(buffer: LatentBuffer, window: tuple[float, float]) -> LatentBuffer:
    """The latents of a part of each trajectory, from the share `window[0]` of its steps to `window[1]`; 0 is pure noise."""
    times = buffer.timesteps.unique().flip(0)
    first = int(window[0] * len(times))
    chosen = times[first : max(round(window[1] * len(times)), first + 1)]
    return buffer.rows(torch.isin(buffer.timesteps, chosen).nonzero()[:, 0])


@dataclass(frozen=True)
class GuidanceTarget:
    """What guidance should become at n latents, and what the frozen subject predicts there without a prompt."""

    wanted: Tensor
    """(n, c, h, w): what ε(x, c) - ε(x, ∅) should become"""
    empty: Tensor
    """(n, c, h, w): ε(x, ∅)"""

    @classmethod
    def of(cls, subject: DiffusionSubject, buffer: LatentBuffer, guides: Sequence[Prompt], eta: float) -> Self:
        """[ε(x, a) - ε(x, ∅)] - η [ε(x, c) - ε(x, ∅)]: a of `guides` (n of them), c the prompt of the trajectory."""
        empty = null_predictions(subject, buffer)
        led = predictions(subject, buffer, guides) - empty
        return cls(led - eta * (predictions(subject, buffer, buffer.prompts) - empty), empty)

    def loss(self, subject: DiffusionSubject, buffer: LatentBuffer, index: Tensor, drift: float) -> Tensor:
        """|[ε_θ(x, c) - ε_θ(x, ∅)] - wanted|² + drift |ε_θ(x, ∅) - ε(x, ∅)|² over latents of the buffer, with gradients."""
        part, n = buffer.rows(index), len(index)
        condition = encode_distinct(subject, [*part.prompts, *[Prompt("")] * n])
        inputs, timesteps = torch.cat([part.inputs] * 2), torch.cat([part.timesteps] * 2)
        prompted, free = subject.predict(inputs, timesteps, condition).float().chunk(2)
        gap = (prompted - free - self.wanted[index].float()).square().mean()
        return gap + drift * (free - self.empty[index].float()).square().mean()


@dataclass(frozen=True)
class Surgical(Eraser[DiffusionSubject, Edit]):
    """Give the concept's prompts the guidance of an alternative, while what is drawn without a prompt stays as it is.

    >>> edit = Surgical(guide="animal", window=(0.0, 0.5))(subject, concept)
    """

    name = "surgical"
    makes = "edit"
    on = "pictures"
    needs = Needs(anchor=True)
    aims = "to_anchor"
    origin = "published"
    authors = Published(read_in="nowhere")
    part: DenoiserPart = "x"
    """What is trained; see `Esd`."""
    guide: str | None = None
    """The alternative: None the anchor prompts, or a text in place of the concept's subject; "" is no subject."""
    eta: float = 1.0
    """η: how much of the concept's own guidance is turned around beside."""
    drift: float = 1.0
    """Weight of the unconditional prediction's drift."""
    window: tuple[float, float] = (0.0, 1.0)
    """The part of each trajectory that is learned on, as shares of its steps; (0, 0.5) is the noisier half."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) whose predictions are kept."""
    training: Training = Training(retain=3.0)
    """How it is trained; latents are those of the frozen subject's trajectories."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(training=replace(TINY_TRAINING, pictures=4))

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError for a window without a step, or a concept without prompts in `sources`."""
        start, end = self.window
        if not 0 <= start < end <= 1:
            raise ValueError(
                f"{self.name}: window is {self.window}; it goes from a share of the trajectory to a later one"
            )
        moved = prompts_to_erase(concept, self.sources, self.name)
        led = destinations_of(moved, concept, self.guide, self.name)
        student = FullWeights(subject, denoiser_parameters(subject, self.part))
        terms = retain_terms(subject, concept, self.preserve, self.training.retain)
        also = self._loss(subject, moved, led) if self.strength else None
        edit = distilled_edit(self, subject, concept, student, terms, retain_only(self.training), self.strength, also)
        return replace(edit, made_by={**edit.made_by, "guides": texts_of(led)})

    def _loss(self, subject: DiffusionSubject, moved: Sequence[Prompt], led: Mapping[Prompt, Prompt]) -> StepLoss:
        options = self.training
        prompts = evenly(moved, options.pictures)
        buffer = in_window(collect(subject, prompts, options.pictures, options.sampling, options.seed), self.window)
        target = GuidanceTarget.of(subject, buffer, [led[p] for p in buffer.prompts], self.eta)

        def loss(step: int, generator: torch.Generator) -> Tensor:
            index = torch.randint(len(buffer), (options.batch,), generator=generator)
            return target.loss(subject, buffer, index, self.drift)

        return loss
