"""SPM: a rank-one membrane beside each matrix of cross-attention (arXiv 2312.16145)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from concept_probe.arguments import Count
from concept_probe.erasers.closed_form.destinations import destinations_of, texts_of
from concept_probe.erasers.closed_form.states import prompts_to_erase
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import (
    TINY_TRAINING,
    Training,
    distilled_edit,
    latent_by_latent,
    past_anchor_term,
    retain_terms,
)
from concept_probe.erasers.finetune.parts import ADAPTED_ROLES, AdaptedModules, adapted_sites
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.trainable import LowRankAdapters
from concept_probe.families import DiffusionSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Sampling, Subspace


@dataclass(frozen=True)
class Spm(Eraser[DiffusionSubject, Edit]):
    """A rank-one term beside each cross-attention matrix that leads the concept past its anchor (arXiv 2312.16145).

    >>> edit = Spm(guide="animal")(subject, concept); edit.export_lora("camel-spm")
    """

    name = "spm"
    makes = "edit"
    on = "pictures"
    needs = Needs(anchor=True)
    aims = "to_anchor"
    origin = "published"
    authors = Published(
        {
            "modules": "transformers",
            "met_at_concept": True,
            "training": latent_by_latent(3000, 1e-4, sampling=Sampling(30, 3.0), retain=1000.0, constant=False),
        },
        apart="membranes open by the likeness of prompt and concept; kept prompts are drawn at random; the rate warms up",
    )
    rank: Count = 1
    """Rank of each term; the paper's membranes have 1."""
    eta: float = 1.0
    """η: how far past the anchor the concept is led."""
    guide: str | None = None
    """What stands in for the concept; see `ConceptAblation`."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) that anchor what is kept."""
    roles: tuple[str, ...] = ADAPTED_ROLES
    """Roles whose modules get a term."""
    training: Training = Training(rate=0.02)
    """How it is trained."""
    strength: float = 1.0
    """Factor on the terms; at 0 nothing is trained."""
    modules: AdaptedModules | None = None
    """In place of `roles`: `transformers`, every linear and convolutional module of the transformer blocks around attention, as
    published, or `but_cross_attention`."""
    met_at_concept: bool = False
    """Whether kept prompts are asked at latents of the concept's trajectories, as published, and not of their own."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(training=TINY_TRAINING)

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where the concept has no prompts in `sources`."""
        moved = prompts_to_erase(concept, self.sources, self.name)
        anchors = destinations_of(moved, concept, self.guide, self.name)
        sites = adapted_sites(subject, self.roles, self.modules)
        student = LowRankAdapters(subject, sites, self.rank, self.training.seed)
        terms = [past_anchor_term(subject, moved, anchors, self.eta)]
        met = moved if self.met_at_concept else ()
        terms += retain_terms(subject, concept, self.preserve, self.training.retain, met)
        edit = distilled_edit(self, subject, concept, student, terms, self.training, self.strength)
        return replace(edit, made_by={**edit.made_by, "guides": texts_of(anchors)})
