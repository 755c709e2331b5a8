"""Concept ablation: the concept's prompts get the predictions of an anchor (arXiv 2303.13516)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from concept_probe.erasers.closed_form.destinations import guides_of, led_to
from concept_probe.erasers.closed_form.states import moved_prompts
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import Lesson, Training, keep
from concept_probe.erasers.finetune.esd import Part, parameters_of, trained
from concept_probe.erasers.finetune.replay import predictions
from concept_probe.erasers.finetune.trainable import Whole
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class ConceptAblation:
    """Train the denoiser to see the concept's prompts as it saw an anchor's, at latents of the anchor's walks.

    >>> edit = ConceptAblation(part="strict", guide="animal")(subject, concept)
    """

    name: ClassVar[str] = "concept_ablation"
    part: Part = "strict"
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

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit:
        """`found` is not used. ValueError where the concept has no prompts to move, or no anchor."""
        moved = moved_prompts(concept, self.sources, self.name)
        led = led_to(moved, guides_of(moved, concept, self.guide, self.name))
        student = Whole(subject, parameters_of(subject, self.part, self.name))

        def asked(guide: Prompt, generator: torch.Generator) -> Prompt:
            own = led[guide]
            return own[int(torch.randint(len(own), (), generator=generator))]

        lesson = Lesson(tuple(led), asked, lambda pool: predictions(subject, pool, pool.prompts, self.name))
        others = [prompt for kind in self.preserve for prompt in concept.prompts(kind, "fit")]
        lessons = [lesson, *keep(subject, others, self.training.retain, self.name)]
        return trained(self, subject, concept, student, lessons, self.training, self.strength)
