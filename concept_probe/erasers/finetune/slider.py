"""Concept sliders: adapters that add a concept to prompts without it, put on backwards (arXiv 2311.12092)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from concept_probe.arguments import Count
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
    same_prompt,
)
from concept_probe.erasers.finetune.parts import ADAPTED_ROLES, AdaptedModules, adapted_sites
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.replay import LatentBuffer, extrapolated_predictions
from concept_probe.erasers.training.trainable import LowRankAdapters
from concept_probe.families import DiffusionSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Subspace


@dataclass(frozen=True)
class Slider(Eraser[DiffusionSubject, Edit]):
    """Learn what makes an anchor's picture one of the concept, then take that away from every prompt.

    >>> edit = Slider(scale=2.0)(subject, concept); edit.export_lora("camel-slider")
    """

    name = "slider"
    makes = "edit"
    on = "pictures"
    needs = Needs(anchor=True)
    aims = "to_anchor"
    origin = "published"
    authors = Published(
        {
            "eta": 4.0,
            "preserve": (),
            "modules": "but_cross_attention",
            "training": latent_by_latent(1000, 2e-4),
        },
        apart="pairs of opposite prompts; AdamW; terms are divided by their rank",
    )
    rank: Count = 4
    """Rank of each term; the paper's choice."""
    eta: float = 1.0
    """η: how far past the anchor, towards the concept, the slider learns to lead."""
    scale: float = 1.0
    """How far it is then put on in the other direction; the paper's multiplier with its sign turned."""
    guide: str | None = None
    """What the concept is added to; see `ConceptAblation`."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that the slider learns from."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) of the retain term, which the paper does without."""
    roles: tuple[str, ...] = ADAPTED_ROLES
    """Roles whose modules get a term."""
    training: Training = Training(rate=0.02)
    """How it is trained."""
    strength: float = 1.0
    """Factor on the terms beside `scale`; at 0 nothing is trained."""
    modules: AdaptedModules | None = None
    """In place of `roles`: `but_cross_attention`, every linear and convolutional module of the denoiser's blocks that is not
    inside cross-attention, as published, or `transformers`; see `Spm`."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(training=TINY_TRAINING)

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where the concept has no prompts in `sources`."""
        moved = prompts_to_erase(concept, self.sources, self.name)
        anchors = destinations_of(moved, concept, self.guide, self.name)
        led = prompts_by_destination(anchors)
        sites = adapted_sites(subject, self.roles, self.modules)
        student = LowRankAdapters(subject, sites, self.rank, self.training.seed)

        def towards_concept(buffer: LatentBuffer) -> Tensor:
            # Of the prompts that share an anchor, each in turn.
            own = [led[p][i % len(led[p])] for i, p in enumerate(buffer.prompts)]
            return extrapolated_predictions(subject, buffer, buffer.prompts, own, self.eta)

        terms = [
            DistillationTerm(tuple(led), same_prompt, towards_concept),
            *retain_terms(subject, concept, self.preserve, self.training.retain),
        ]
        edit = distilled_edit(self, subject, concept, student, terms, self.training, -self.scale * self.strength)
        return replace(edit, made_by={**edit.made_by, "guides": texts_of(anchors)})
