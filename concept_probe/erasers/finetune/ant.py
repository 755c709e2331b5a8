"""ANT: turn guidance around once a picture has its outline, in the entries that matter to it (arXiv 2504.12782)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from concept_probe.erasers.closed_form.states import moved_prompts
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import Lesson, Training, keep, loss_of, same
from concept_probe.erasers.finetune.esd import Part, parameters_of, trained
from concept_probe.erasers.finetune.replay import Pool, predictions
from concept_probe.erasers.finetune.trainable import Chosen, Whole
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

LOOKS = 4
"""Batches that a map of saliency sums over."""


def is_early(pool: Pool, early: float, total: int) -> Tensor:
    """Bool (n,): latents whose timestep, of `total`, lies in the first share `early` of a walk, where t > t'."""
    return pool.timesteps > (1 - early) * total


def timesteps_of(subject: Subject) -> int:
    """How many timesteps the denoiser was trained on, from which they are counted down."""
    return subject.pipeline.scheduler.config.num_train_timesteps


def turned(subject: Subject, pool: Pool, eta: float, early: float, method: str) -> Tensor:
    """ε(x, ∅) + η [ε(x, c) - ε(x, ∅)] at early latents of a pool and ε(x, ∅) - η [ε(x, c) - ε(x, ∅)] at the others."""
    empty = predictions(subject, pool, [Prompt("")] * len(pool), method)
    sign = torch.where(is_early(pool, early, timesteps_of(subject)), 1.0, -1.0).to(empty)[:, None, None, None]
    return empty + sign * eta * (predictions(subject, pool, pool.prompts, method) - empty)


def heaviest(slope: Tensor, share: float) -> Tensor:
    """Bool, in the shape of `slope`: the share of its entries that is largest in size, at least one."""
    sizes = slope.detach().abs().flatten()
    top = sizes.topk(max(round(share * sizes.numel()), 1)).indices
    return torch.zeros_like(sizes, dtype=torch.bool).index_fill(0, top, True).view_as(slope)


def salient(
    subject: Subject, student: Whole, views: Sequence[tuple[Lesson, Training]], share: float, method: str
) -> dict[str, Tensor]:
    """Masks by address: the entries that are among the heaviest share of their parameter's slope in every view.

    A view is the concept's lesson with prompts and noise of its own. Parameters of which nothing is left are left out.
    """
    masks = {where: torch.ones_like(p, dtype=torch.bool) for where, p in student.parameters.items()}
    for lesson, training in views:
        generator = torch.Generator().manual_seed(training.seed)
        loss = loss_of(subject, student, [lesson], training, method)
        with torch.enable_grad(), student.on():
            for step in range(LOOKS):
                loss(step, generator).backward()
            for where, p in student.parameters.items():
                masks[where] &= torch.zeros_like(masks[where]) if p.grad is None else heaviest(p.grad, share)
    return {where: mask for where, mask in masks.items() if mask.any()}


@dataclass(frozen=True)
class Ant:
    """Keep what the concept's prompt does early in a walk and turn it around later; ∅ stays as it was.

    >>> edit = Ant(early=0.3, share=0.3)(subject, concept)
    """

    name: ClassVar[str] = "ant"
    part: Part = "x"
    """What saliency chooses from; see `Esd`."""
    eta: float = 1.0
    """η: how far the concept's prompt leads, away from the empty prompt early and to its other side later."""
    early: float = 0.14
    """Share of the walk, from its start, in which the concept's prompt is answered as before; 1 - t' / T."""
    first: float = 1.0
    """α₁: weight of early latents."""
    empty: float = 0.5
    """α₂: weight of the lesson that the empty prompt is answered as before at these latents."""
    share: float = 0.5
    """Share of each parameter's entries that one map of saliency keeps; 1 trains all."""
    views: int = 3
    """Maps of saliency for each list in `augment`, each with noise of its own; what all of them keep is trained."""
    augment: tuple[Kind, ...] = ("target", "paraphrases")
    """Lists of the concept's prompts (fit split) that maps of saliency are made of."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) of the retain lesson, which the paper does without."""
    training: Training = Training(refresh=40)
    """How it is trained."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit:
        """`found` is not used.

        ValueError where the concept has no prompts in `sources`, for a share that is none, and where no entry is salient in every view.
        """
        for option in ("early", "share"):
            if not 0 <= getattr(self, option) <= 1:
                raise ValueError(f"{self.name}: {option} is {getattr(self, option)}; it is a share, from 0 to 1")
        moved = tuple(moved_prompts(concept, self.sources, self.name))
        student: Whole = Whole(subject, parameters_of(subject, self.part, self.name))
        if self.strength and self.share < 1:
            student = self._chosen(subject, concept, student)
        lessons = [self._lesson(subject, moved)]
        if self.empty:
            lessons.append(
                Lesson(
                    moved, _nothing, lambda pool: _empty(subject, pool, self.name), self.empty, self._stress(subject)
                )
            )
        others = [prompt for kind in self.preserve for prompt in concept.prompts(kind, "fit")]
        lessons += keep(subject, others, self.training.retain, self.name)
        return trained(self, subject, concept, student, lessons, self.training, self.strength)

    def _lesson(self, subject: Subject, moved: tuple[Prompt, ...]) -> Lesson:
        return Lesson(
            moved, same, lambda pool: turned(subject, pool, self.eta, self.early, self.name),
            stress=self._stress(subject),
        )  # fmt: skip

    def _stress(self, subject: Subject) -> Callable[[Pool], Tensor]:
        total = timesteps_of(subject)
        return lambda pool: torch.where(is_early(pool, self.early, total), self.first, 1.0)

    def _chosen(self, subject: Subject, concept: Concept, student: Whole) -> Chosen:
        moved_prompts(concept, self.augment, self.name)  # raises where there are none
        lists = [tuple(concept.prompts(kind, "fit")) for kind in self.augment]
        once = replace(self.training, refresh=0, adversary=0, pictures=min(self.training.pictures, LOOKS))
        views = [
            (self._lesson(subject, prompts), replace(once, seed=once.seed + 100 + i))
            for prompts in lists
            if prompts
            for i in range(self.views)
        ]
        masks = salient(subject, student, views, self.share, self.name)
        if not masks:
            raise ValueError(
                f"{self.name}: no entry is among the heaviest {self.share:.0%} of its parameter in all {len(views)} maps "
                "of saliency; raise `share`, or lower `views`"
            )
        return Chosen(subject, masks)


def _nothing(prompt: Prompt, generator: torch.Generator) -> Prompt:
    return Prompt("")


def _empty(subject: Subject, pool: Pool, method: str) -> Tensor:
    return predictions(subject, pool, [Prompt("")] * len(pool), method)
