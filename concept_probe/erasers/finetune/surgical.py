"""All but One: rewrite the concept's guidance term, and hold the unconditional prediction still (arXiv 2312.12807)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from concept_probe.erasers.closed_form.destinations import guides_of, nearest
from concept_probe.erasers.closed_form.states import moved_prompts
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import Training, keep, others_alone
from concept_probe.erasers.finetune.esd import Part, parameters_of, trained
from concept_probe.erasers.finetune.loop import Loss
from concept_probe.erasers.finetune.replay import Pool, conditions, denoiser, predictions, walks
from concept_probe.erasers.finetune.trainable import Whole
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Subspace, evenly

if TYPE_CHECKING:
    from concept_probe.families import Subject

EMPTY = Prompt("")


def within(pool: Pool, window: tuple[float, float]) -> Pool:
    """The latents of a part of each walk, from the share `window[0]` of its steps to `window[1]`; 0 is pure noise."""
    times = pool.timesteps.unique().flip(0)
    first = int(window[0] * len(times))
    chosen = times[first : max(round(window[1] * len(times)), first + 1)]
    return pool.rows(torch.isin(pool.timesteps, chosen).nonzero()[:, 0])


@dataclass(frozen=True)
class Guidance:
    """What the frozen subject says of n latents, and what is made of it."""

    wanted: Tensor
    """(n, c, h, w): what ε(x, c) - ε(x, ∅) should become"""
    empty: Tensor
    """(n, c, h, w): ε(x, ∅)"""

    @classmethod
    def of(cls, subject: Subject, pool: Pool, guides: Sequence[Prompt], eta: float, method: str) -> Guidance:
        """[ε(x, a) - ε(x, ∅)] - η [ε(x, c) - ε(x, ∅)]: a of `guides` (n of them), c the prompt of the walk."""
        empty = predictions(subject, pool, [EMPTY] * len(pool), method)
        led = predictions(subject, pool, guides, method) - empty
        return cls(led - eta * (predictions(subject, pool, pool.prompts, method) - empty), empty)

    def loss(self, subject: Subject, pool: Pool, index: Tensor, drift: float, method: str) -> Tensor:
        """|[ε_θ(x, c) - ε_θ(x, ∅)] - wanted|² + drift |ε_θ(x, ∅) - ε(x, ∅)|² over latents of the pool, with gradients."""
        part, n = pool.rows(index), len(index)
        condition = conditions(subject, [*part.prompts, *[EMPTY] * n], method)
        seen, times = torch.cat([part.seen] * 2), torch.cat([part.timesteps] * 2)
        said, free = denoiser(subject, method).predict(seen, times, condition).float().chunk(2)
        gap = (said - free - self.wanted[index].float()).square().mean()
        return gap + drift * (free - self.empty[index].float()).square().mean()


@dataclass(frozen=True)
class Surgical:
    """Give the concept's prompts the guidance of an alternative, while what is drawn without a prompt stays as it is.

    >>> edit = Surgical(guide="animal", window=(0.0, 0.5))(subject, concept)
    """

    name: ClassVar[str] = "surgical"
    part: Part = "x"
    """What is trained; see `Esd`."""
    guide: str | None = None
    """The alternative: None the anchor prompts, or a text in place of the concept's subject; "" is no subject."""
    eta: float = 1.0
    """η: how much of the concept's own guidance is turned around beside."""
    drift: float = 1.0
    """Weight of the unconditional prediction's drift."""
    window: tuple[float, float] = (0.0, 1.0)
    """The part of each walk that is learned on, as shares of its steps; (0, 0.5) is the noisier half."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) whose predictions are kept."""
    training: Training = Training(retain=3.0)
    """How it is trained; latents are those of the frozen subject's walks."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit:
        """`found` is not used. ValueError for a window without a step, a concept without prompts to erase or anchor."""
        start, end = self.window
        if not 0 <= start < end <= 1:
            raise ValueError(f"{self.name}: window is {self.window}; it goes from a share of the walk to a later one")
        moved = moved_prompts(concept, self.sources, self.name)
        guides = guides_of(moved, concept, self.guide, self.name)
        student = Whole(subject, parameters_of(subject, self.part, self.name))
        others = [prompt for kind in self.preserve for prompt in concept.prompts(kind, "fit")]
        lessons = keep(subject, others, self.training.retain, self.name)
        also = self._cut(subject, moved, guides) if self.strength else None
        return trained(self, subject, concept, student, lessons, others_alone(self.training), self.strength, also)

    def _cut(self, subject: Subject, moved: Sequence[Prompt], guides: Sequence[Prompt]) -> Loss:
        options = self.training
        led = nearest(moved, guides)
        walked = evenly(moved, options.pictures)
        pool = within(walks(subject, walked, options.pictures, options.sampling, options.seed), self.window)
        guidance = Guidance.of(subject, pool, [led[p] for p in pool.prompts], self.eta, self.name)

        def loss(step: int, generator: torch.Generator) -> Tensor:
            index = torch.randint(len(pool), (options.batch,), generator=generator)
            return guidance.loss(subject, pool, index, self.drift, self.name)

        return loss
