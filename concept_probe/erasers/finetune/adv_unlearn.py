"""AdvUnlearn: ESD of the text encoder under an adversary that moves the prompt's embeddings (arXiv 2405.15234)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from concept_probe.erasers.closed_form.states import prompts_to_erase
from concept_probe.erasers.closed_form.value_offsets import edited_layers
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import parameters_below
from concept_probe.erasers.finetune.distillation import (
    TINY_TRAINING,
    Training,
    distilled_edit,
    latent_by_latent,
    retain_terms,
)
from concept_probe.erasers.finetune.negative_guidance import GuidanceBase, negative_guidance_term
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.trainable import FullWeights
from concept_probe.families import DiffusionSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Subspace


def layer_parameters(subject: DiffusionSubject, layers: Sequence[int]) -> list[str]:
    """Addresses of all parameters of these layers of every text encoder."""
    sites = [site for one in edited_layers(subject, layers) for site in one.streams]
    return [where for site in sites for where in parameters_below(subject, site)]


@dataclass(frozen=True)
class AdvUnlearn(Eraser[DiffusionSubject, Edit]):
    """Train the text encoder to read the concept's prompts, however their embeddings are moved, as its opposite.

    >>> edit = AdvUnlearn(training=Training(adversary=10))(subject, concept)
    """

    name = "adv_unlearn"
    makes = "edit"
    on = "pictures"
    aims = "to_empty"
    origin = "published"
    authors = Published(
        {
            "training": latent_by_latent(1000, 1e-5, adversary=30, retain=1.0),
        },
        apart="the adversary learns one word in front of the prompt, after 200 steps without; kept prompts take a step of "
        "their own; the whole encoder is trained",
    )
    layers: tuple[int, ...] = ()
    """Layers of each text encoder that are trained; empty: all that what is read depends on, but the last."""
    eta: float = 1.0
    """η: how far past its base the concept's prompt is led; see `Esd`."""
    base: GuidanceBase = "empty"
    """What that is: the `empty` prompt, or the concept's `anchor`; see `Esd`."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) of the retain term."""
    training: Training = Training(adversary=3, rate=0.005)
    """How it is trained; `adversary` and `reach` are the inner attack's."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(training=replace(TINY_TRAINING, adversary=2, steps=30, rate=0.01, retain=3.0))

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where the concept has no prompts in `sources`."""
        moved = tuple(prompts_to_erase(concept, self.sources, self.name))
        student = FullWeights(subject, layer_parameters(subject, self.layers))
        terms = [negative_guidance_term(subject, concept, moved, self.eta, self.base, self.name)]
        terms += retain_terms(subject, concept, self.preserve, self.training.retain)
        return distilled_edit(self, subject, concept, student, terms, self.training, self.strength)
