"""ESD: fine-tune the denoiser to say the opposite of what the concept's prompt made it say (arXiv 2303.07345)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from concept_probe.erasers.closed_form.states import prompts_to_erase
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import (
    TINY_TRAINING,
    Training,
    distilled_edit,
    latent_by_latent,
    retain_terms,
)
from concept_probe.erasers.finetune.negative_guidance import GuidanceBase, negative_guidance_term, taken_out_term
from concept_probe.erasers.finetune.parts import DenoiserPart, denoiser_parameters
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.trainable import FullWeights
from concept_probe.families import DiffusionSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Subspace


@dataclass(frozen=True)
class Esd(Eraser[DiffusionSubject, Edit]):
    """Distil guidance away from the concept into the weights.

    >>> edit = Esd(part="strict", eta=2.0)(subject, concept)
    """

    name = "esd"
    makes = "edit"
    on = "pictures"
    aims = "to_empty"
    origin = "published"
    authors = Published(
        {
            "preserve": (),
            "training": latent_by_latent(200, 5e-5),
            "leave_norms": True,
        },
        apart="latents are the frozen model's in the current code, whose η of 2 is 1 here",
    )
    part: DenoiserPart = "x"
    """What is trained: `x` all of cross-attention, `u` all of the denoiser but that, `strict` keys and values, `all`."""
    eta: float = 1.0
    """η: how far past its base the concept's prompt is led."""
    base: GuidanceBase = "empty"
    """The `empty` prompt, as in the paper, or the concept's `anchor`, for what the model also draws unasked."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) of the retain term, which the paper does without."""
    training: Training = Training(refresh=40)
    """How it is trained; latents are those of the student's own trajectories, made anew now and then."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""
    leave_norms: bool = False
    """Whether linear and convolutional modules alone are trained, as in the authors' code: parts `u` and `all` hold norms too."""
    erase_from: str | None = None
    """A text that the concept is taken out of, as `erase_from` of the authors' code: it is asked in the concept's place, and led
    from what it says, against the concept."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(training=TINY_TRAINING)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.erase_from is not None and self.base != "empty":
            raise ValueError(
                f"esd: erase_from {self.erase_from!r} is what the concept is led away from, and base is {self.base!r}; leave one out"
            )

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where the concept has no prompts in `sources`."""
        moved = tuple(prompts_to_erase(concept, self.sources, self.name))
        student = FullWeights(subject, denoiser_parameters(subject, self.part, self.leave_norms))
        terms = [
            negative_guidance_term(subject, concept, moved, self.eta, self.base, self.name)
            if self.erase_from is None
            else taken_out_term(subject, moved, self.erase_from, self.eta)
        ]
        terms += retain_terms(subject, concept, self.preserve, self.training.retain)
        return distilled_edit(self, subject, concept, student, terms, self.training, self.strength)
