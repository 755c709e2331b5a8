"""Concept sliders: adapters that add a concept to prompts without it, put on backwards (arXiv 2311.12092)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from concept_probe.erasers.closed_form.destinations import guides_of, led_to
from concept_probe.erasers.closed_form.states import moved_prompts
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import Lesson, Training, keep, same
from concept_probe.erasers.finetune.esd import trained
from concept_probe.erasers.finetune.replay import Pool, predictions
from concept_probe.erasers.finetune.spm import BESIDE, beside
from concept_probe.erasers.finetune.trainable import Adapters
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Subspace

if TYPE_CHECKING:
    from torch import Tensor

    from concept_probe.families import Subject


@dataclass(frozen=True)
class Slider:
    """Learn what makes an anchor's picture one of the concept, then take that away from every prompt.

    >>> edit = Slider(scale=2.0)(subject, concept); edit.export_lora("camel-slider")
    """

    name: ClassVar[str] = "slider"
    rank: int = 4
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
    """Lists of other prompts (fit split) of the retain lesson, which the paper does without."""
    roles: tuple[str, ...] = BESIDE
    """Roles whose modules get a term."""
    training: Training = Training(rate=0.02)
    """How it is trained."""
    strength: float = 1.0
    """Factor on the terms beside `scale`; at 0 nothing is trained."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit:
        """`found` is not used. ValueError where the concept has no prompts in `sources`, or no anchor."""
        moved = moved_prompts(concept, self.sources, self.name)
        led = led_to(moved, guides_of(moved, concept, self.guide, self.name))
        student = Adapters(subject, beside(subject, self.roles), self.rank, self.training.seed)

        def goal(pool: Pool) -> Tensor:
            # Of the prompts that share an anchor, each in turn.
            asked = [led[p][i % len(led[p])] for i, p in enumerate(pool.prompts)]
            return towards(subject, pool, asked, self.eta, self.name)

        others = [prompt for kind in self.preserve for prompt in concept.prompts(kind, "fit")]
        lessons = [Lesson(tuple(led), same, goal), *keep(subject, others, self.training.retain, self.name)]
        return trained(self, subject, concept, student, lessons, self.training, -self.scale * self.strength)


def towards(subject: Subject, pool: Pool, asked: Sequence[Prompt], eta: float, method: str) -> Tensor:
    """ε(x, g) + η [ε(x, c) - ε(x, g)] of each latent: g the prompt of its walk, c what `asked` names (n of them)."""
    anchor = predictions(subject, pool, pool.prompts, method)
    return anchor + eta * (predictions(subject, pool, asked, method) - anchor)
