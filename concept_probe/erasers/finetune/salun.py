"""SalUn: the concept's prompts get another's predictions, in the weights that matter most to the concept (arXiv 2310.12508)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from concept_probe.arguments import Share
from concept_probe.erasers.closed_form.destinations import destinations_of, texts_of
from concept_probe.erasers.closed_form.states import prompts_to_erase
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import (
    TINY_TRAINING,
    DistillationTerm,
    Training,
    distilled_edit,
    retain_terms,
    same_prompt,
)
from concept_probe.erasers.finetune.parts import DenoiserPart, denoiser_parameters
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.replay import encode_prompts, predictions
from concept_probe.erasers.training.trainable import FullWeights, MaskedWeights
from concept_probe.families import DiffusionSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Query, Subspace

MAP_BATCHES = 8
"""Batches that the map of saliency sums over."""


def largest_of_all(gradients: Mapping[str, Tensor], share: float, *, least: bool = False) -> dict[str, Tensor]:
    """Masks by address, bool: the share of all entries together that is largest in size, or with `least` smallest.

    Addresses of which nothing is among them are left out.
    """
    sizes = torch.cat([g.abs().flatten() for g in gradients.values()])
    chosen = torch.zeros_like(sizes, dtype=torch.bool)
    chosen[sizes.topk(max(round(share * len(sizes)), 1), largest=not least).indices] = True
    parts = chosen.split([g.numel() for g in gradients.values()])
    masks = {where: part.view_as(g) for part, (where, g) in zip(parts, gradients.items(), strict=True)}
    return {where: mask for where, mask in masks.items() if mask.any()}


def guided_gradients(
    subject: DiffusionSubject, student: FullWeights, prompts: Sequence[Prompt], guidance: float, training: Training
) -> dict[str, Tensor]:
    """By address, the gradient of |y − (ε(x_t, c) + w [ε(x_t, c) − ε(x_t, ∅)])|², summed over `MAP_BATCHES` batches.

    x_t are noised pictures that the subject draws for the prompts c, y what it should predict there, w the `guidance`.
    """
    queries = [Query(prompts[i % len(prompts)], training.seed + i) for i in range(training.pictures)]
    clean, generator = subject.sample(queries, training.sampling), torch.Generator().manual_seed(training.seed)
    with torch.enable_grad(), student.on():
        for _ in range(MAP_BATCHES):
            rows = torch.randint(len(clean), (training.batch,), generator=generator)
            x, timesteps, goal = subject.schedule.training_pair(clean[rows.to(clean.device)], generator)
            asked = [queries[i].prompt for i in rows.tolist()]
            own, empty = (
                subject.predict(x, timesteps, encode_prompts(subject, of)) for of in (asked, [Prompt("")] * len(asked))
            )
            (goal - (own + guidance * (own - empty))).float().square().mean().backward()
        return {w: torch.zeros_like(p) if p.grad is None else p.grad.clone() for w, p in student.parameters.items()}


@dataclass(frozen=True)
class SalUn(Eraser[DiffusionSubject, Edit]):
    """At latents of the concept's own pictures, its prompts are answered as another's; weights that hardly matter to it stay.

    >>> edit = SalUn(share=0.5)(subject, concept)
    """

    name = "salun"
    makes = "edit"
    on = "pictures"
    needs = Needs(anchor=True)
    aims = "to_anchor"
    origin = "published"
    authors = Published(
        {
            "part": "all",
            "least": True,
            "own_target": True,
            "training": Training(steps=500, batch=8, rate=1e-5, retain=0.5, absolute=True, constant=True),
        },
        apart="eight hundred pictures of each of ten classes, in five passes; what is kept is kept by the loss of pictures",
    )
    part: DenoiserPart = "x"
    """What saliency chooses from; see `Esd`."""
    guide: str | None = None
    """What the concept's prompts become: None the anchor prompts, or a text in place of its subject."""
    share: Share = 0.5
    """Share of all entries together that is trained; 1 trains all."""
    guidance: float = 7.5
    """w of the loss whose gradient tells what matters."""
    least: bool = False
    """Whether the entries that matter *least* are trained, as the authors' code for diffusion models has it."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) that are answered as before."""
    training: Training = Training()
    """How it is trained."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""
    own_target: bool = False
    """Whether the goal is what the student itself predicts for the other prompt at the time, without gradients, as in the
    authors' code; else the frozen subject's, which can't drift."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(part="strict", training=replace(TINY_TRAINING, steps=40))

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where the concept has no prompts in `sources`, or the share is none."""
        if not self.share:
            raise ValueError(
                f"{self.name}: share is 0, so nothing would be trained; give more than 0, to 1 for all entries"
            )
        moved = tuple(prompts_to_erase(concept, self.sources, self.name))
        led = destinations_of(moved, concept, self.guide, self.name)
        student = FullWeights(subject, denoiser_parameters(subject, self.part))
        if self.strength and self.share < 1:
            gradients = guided_gradients(subject, student, moved, self.guidance, self.training)
            student = MaskedWeights(subject, largest_of_all(gradients, self.share, least=self.least))
        term = DistillationTerm(
            moved,
            same_prompt,
            lambda buffer: predictions(subject, buffer, [led[p] for p in buffer.prompts]),
            by_student=self.own_target,
        )
        terms = [term, *retain_terms(subject, concept, self.preserve, self.training.retain)]
        edit = distilled_edit(self, subject, concept, student, terms, self.training, self.strength)
        return replace(edit, made_by={**edit.made_by, "guides": texts_of(led)})
