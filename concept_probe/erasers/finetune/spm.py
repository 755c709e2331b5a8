"""SPM: a rank-one membrane beside each matrix of cross-attention (arXiv 2312.16145)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from concept_probe.erasers.closed_form.destinations import guides_of, led_to
from concept_probe.erasers.closed_form.states import moved_prompts
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import Lesson, Training, keep, same
from concept_probe.erasers.finetune.esd import trained
from concept_probe.erasers.finetune.replay import Pool, predictions
from concept_probe.erasers.finetune.trainable import Adapters
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

BESIDE = ("cross_query", "cross_key", "cross_value")
"""Roles of the linear modules that adapters stand beside."""


def beside(subject: Subject, roles: Sequence[str]) -> list[Site]:
    """The weights of the linear modules at `roles`."""
    return [Site(site.component, site.path, "weight") for role in roles for site in subject.sites(role)]


def apart(subject: Subject, pool: Pool, guide: dict[Prompt, Prompt], eta: float, method: str) -> Tensor:
    """ε(x, g) + η [ε(x, c) - ε(x, g)] of each latent, c the prompt of its walk and g what stands in for it."""
    anchor = predictions(subject, pool, [guide[p] for p in pool.prompts], method)
    return anchor + eta * (predictions(subject, pool, pool.prompts, method) - anchor)


def guide_of(concept: Concept, moved: Sequence[Prompt], guide: str | None, method: str) -> dict[Prompt, Prompt]:
    """Each moved prompt's guide."""
    led = led_to(moved, guides_of(moved, concept, guide, method))
    return {prompt: anchor for anchor, own in led.items() for prompt in own}


@dataclass(frozen=True)
class Spm:
    """A rank-one term beside each cross-attention matrix that leads the concept past its anchor (arXiv 2312.16145).

    >>> edit = Spm(guide="animal")(subject, concept); edit.export_lora("camel-spm")
    """

    name: ClassVar[str] = "spm"
    rank: int = 1
    """Rank of each term; the paper's membranes have 1."""
    eta: float = 1.0
    """η: how far past the anchor the concept is led."""
    guide: str | None = None
    """What stands in for the concept; see `ConceptAblation`."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) that anchor what is kept."""
    roles: tuple[str, ...] = BESIDE
    """Roles whose modules get a term."""
    training: Training = Training(rate=0.02)
    """How it is trained."""
    strength: float = 1.0
    """Factor on the terms; at 0 nothing is trained."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit:
        """`found` is not used. ValueError where the concept has no prompts to move, or no anchor."""
        moved = moved_prompts(concept, self.sources, self.name)
        guide = guide_of(concept, moved, self.guide, self.name)
        student = Adapters(subject, beside(subject, self.roles), self.rank, self.training.seed)
        lessons = [Lesson(tuple(moved), same, lambda pool: apart(subject, pool, guide, -self.eta, self.name))]
        others = [prompt for kind in self.preserve for prompt in concept.prompts(kind, "fit")]
        lessons += keep(subject, others, self.training.retain, self.name)
        return trained(self, subject, concept, student, lessons, self.training, self.strength)
