"""Concept ablation: the concept's prompts get the predictions of an anchor (arXiv 2303.13516)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch

from concept_probe.erasers.closed_form.destinations import destinations_of, prompts_by_destination, texts_of
from concept_probe.erasers.closed_form.states import prompts_to_erase
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import (
    TINY_TRAINING,
    DistillationTerm,
    Training,
    distilled_edit,
    latent_by_latent,
    retain_terms,
)
from concept_probe.erasers.finetune.parts import DenoiserPart, denoiser_parameters
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.replay import predictions
from concept_probe.erasers.training.trainable import FullWeights
from concept_probe.families import DiffusionSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Sampling, Subspace


@dataclass(frozen=True)
class ConceptAblation(Eraser[DiffusionSubject, Edit]):
    """Train the denoiser to see the concept's prompts as it saw an anchor's, at latents of the anchor's trajectories.

    >>> edit = ConceptAblation(part="strict", guide="animal")(subject, concept)
    """

    name = "concept_ablation"
    makes = "edit"
    on = "pictures"
    needs = Needs(anchor=True)
    aims = "to_anchor"
    origin = "published"
    authors = Published(
        {
            "preserve": (),
            "own_target": True,
            "training": latent_by_latent(100, 1.6e-5, batch=8, pictures=200, sampling=Sampling(200, 6.0), refresh=0),
        },
        apart="finished pictures of the anchor are noised; AdamW",
    )
    part: DenoiserPart = "strict"
    """What is trained; see `Esd`. The paper's choice is keys and values."""
    guide: str | None = None
    """What stands in for the concept: None the anchor prompts, or a text in place of its subject."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are moved."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) that are answered as before; the paper keeps the anchor's alone."""
    training: Training = Training()
    """How it is trained."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""
    own_target: bool = False
    """Whether the goal is what the student itself predicts for the anchor at the time, without gradients, as in the authors'
    code; else the frozen subject's, which can't drift."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(training=TINY_TRAINING)

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where the concept has no prompts in `sources`."""
        moved = prompts_to_erase(concept, self.sources, self.name)
        anchors = destinations_of(moved, concept, self.guide, self.name)
        led = prompts_by_destination(anchors)
        student = FullWeights(subject, denoiser_parameters(subject, self.part))

        def any_led_to(guide: Prompt, generator: torch.Generator) -> Prompt:
            own = led[guide]
            return own[int(torch.randint(len(own), (), generator=generator))]

        term = DistillationTerm(
            tuple(led), any_led_to, lambda x: predictions(subject, x, x.prompts), by_student=self.own_target
        )
        terms = [term, *retain_terms(subject, concept, self.preserve, self.training.retain)]
        edit = distilled_edit(self, subject, concept, student, terms, self.training, self.strength)
        return replace(edit, made_by={**edit.made_by, "guides": texts_of(anchors)})
