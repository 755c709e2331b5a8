"""ANT: turn guidance around once a picture has its outline, in the entries that matter to it (arXiv 2504.12782)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from concept_probe.arguments import Count
from concept_probe.erasers.closed_form.states import prompts_to_erase
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import (
    TINY_TRAINING,
    DistillationTerm,
    Training,
    distillation_loss,
    distilled_edit,
    latent_by_latent,
    retain_terms,
    same_prompt,
)
from concept_probe.erasers.finetune.parts import DenoiserPart, denoiser_parameters
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.replay import LatentBuffer, null_predictions, predictions
from concept_probe.erasers.training.trainable import FullWeights, MaskedWeights
from concept_probe.families import DiffusionSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Subspace

LOOKS = 4
"""Batches that a map of saliency sums over."""


def is_early(buffer: LatentBuffer, early: float, total: int) -> Tensor:
    """Bool (n,): latents whose timestep, of `total`, lies in the first share `early` of a trajectory, where t > t'."""
    return buffer.timesteps > (1 - early) * total


def reversed_guidance_target(subject: DiffusionSubject, buffer: LatentBuffer, eta: float, early: float) -> Tensor:
    """ε(x, ∅) + η [ε(x, c) - ε(x, ∅)] at early latents of a buffer, ε(x, ∅) - η [ε(x, c) - ε(x, ∅)] at the others."""
    empty = null_predictions(subject, buffer)
    sign = torch.where(is_early(buffer, early, subject.schedule.train_timesteps), 1.0, -1.0).to(empty)[
        :, None, None, None
    ]
    return empty + sign * eta * (predictions(subject, buffer, buffer.prompts) - empty)


def largest_entries(gradient: Tensor, share: float) -> Tensor:
    """Bool, in the shape of `gradient`: the share of its entries that is largest in size, at least one."""
    sizes = gradient.detach().abs().flatten()
    top = sizes.topk(max(round(share * sizes.numel()), 1)).indices
    return torch.zeros_like(sizes, dtype=torch.bool).index_fill(0, top, True).view_as(gradient)


def saliency_masks(
    subject: DiffusionSubject, student: FullWeights, views: Sequence[tuple[DistillationTerm, Training]], share: float
) -> dict[str, Tensor]:
    """Masks by address: the entries that are among the largest share of their parameter's gradient in every view.

    A view is the concept's term with prompts and noise of its own. Parameters of which nothing is left are left out.
    """
    masks = {where: torch.ones_like(p, dtype=torch.bool) for where, p in student.parameters.items()}
    for term, training in views:
        generator = torch.Generator().manual_seed(training.seed)
        loss = distillation_loss(subject, student, [term], training)
        with torch.enable_grad(), student.on():
            for step in range(LOOKS):
                loss(step, generator).backward()
            for where, p in student.parameters.items():
                masks[where] &= torch.zeros_like(masks[where]) if p.grad is None else largest_entries(p.grad, share)
    return {where: mask for where, mask in masks.items() if mask.any()}


@dataclass(frozen=True)
class Ant(Eraser[DiffusionSubject, Edit]):
    """Keep what the concept's prompt does early in a trajectory and turn it around later; ∅ stays as it was.

    >>> edit = Ant(early=0.3, share=0.3)(subject, concept)
    """

    name = "ant"
    makes = "edit"
    on = "pictures"
    aims = "to_empty"
    origin = "published"
    authors = Published(
        {
            "part": "all",
            "preserve": (),
            "training": latent_by_latent(250, 5e-4),
        },
        apart="masks are of a run of their own",
    )
    part: DenoiserPart = "x"
    """What saliency chooses from; see `Esd`."""
    eta: float = 1.0
    """η: how far the concept's prompt leads, away from the empty prompt early and to its other side later."""
    early: float = 0.14
    """Share of the trajectory, from its start, in which the concept's prompt is answered as before; 1 - t' / T."""
    first: float = 1.0
    """α₁: weight of early latents."""
    empty: float = 0.5
    """α₂: weight of the term that the empty prompt is answered as before at these latents."""
    share: float = 0.5
    """Share of each parameter's entries that one map of saliency keeps; 1 trains all."""
    views: Count = 3
    """Maps of saliency for each list in `augment`, each with noise of its own; what all of them keep is trained."""
    augment: tuple[Kind, ...] = ("target", "paraphrases")
    """Lists of the concept's prompts (fit split) that maps of saliency are made of."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) of the retain term, which the paper does without."""
    training: Training = Training(refresh=40)
    """How it is trained."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(early=0.0, views=1, augment=("target",), training=TINY_TRAINING)

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where the concept has no prompts in `sources`, a share is none, or no entry is salient in every view."""
        for option in ("early", "share"):
            if not 0 <= getattr(self, option) <= 1:
                raise ValueError(f"{self.name}: {option} is {getattr(self, option)}; it is a share, from 0 to 1")
        moved = tuple(prompts_to_erase(concept, self.sources, self.name))
        student: FullWeights = FullWeights(subject, denoiser_parameters(subject, self.part))
        if self.strength and self.share < 1:
            student = self._masked(subject, concept, student)
        terms = [self._term(subject, moved)]
        if self.empty:
            terms.append(self._empty_term(subject, moved))
        terms += retain_terms(subject, concept, self.preserve, self.training.retain)
        return distilled_edit(self, subject, concept, student, terms, self.training, self.strength)

    def _term(self, subject: DiffusionSubject, moved: tuple[Prompt, ...]) -> DistillationTerm:
        return DistillationTerm(
            moved,
            same_prompt,
            lambda buffer: reversed_guidance_target(subject, buffer, self.eta, self.early),
            weighting=self._weighting(subject),
        )

    def _empty_term(self, subject: DiffusionSubject, moved: tuple[Prompt, ...]) -> DistillationTerm:
        """That the empty prompt is answered as before at the latents of the concept."""
        return DistillationTerm(
            moved,
            lambda prompt, generator: Prompt(""),
            lambda buffer: null_predictions(subject, buffer),
            self.empty,
            self._weighting(subject),
        )

    def _weighting(self, subject: DiffusionSubject) -> Callable[[LatentBuffer], Tensor]:
        total = subject.schedule.train_timesteps
        return lambda buffer: torch.where(is_early(buffer, self.early, total), self.first, 1.0)

    def _masked(self, subject: DiffusionSubject, concept: Concept, student: FullWeights) -> MaskedWeights:
        prompts_to_erase(concept, self.augment, self.name)  # raises where there are none
        lists = [tuple(concept.prompts(kind, "fit")) for kind in self.augment]
        once = replace(self.training, refresh=0, adversary=0, pictures=min(self.training.pictures, LOOKS))
        views = [
            (self._term(subject, prompts), replace(once, seed=once.seed + 100 + i))
            for prompts in lists
            if prompts
            for i in range(self.views)
        ]
        masks = saliency_masks(subject, student, views, self.share)
        if not masks:
            raise ValueError(
                f"{self.name}: no entry is among the largest {self.share:.0%} of its parameter in all {len(views)} maps "
                "of saliency; raise `share`, or lower `views`"
            )
        return MaskedWeights(subject, masks)
