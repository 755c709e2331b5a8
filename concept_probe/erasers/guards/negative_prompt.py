"""Negative prompt: guidance leads away from the concept instead of away from the empty prompt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.guards.naming import text_naming
from concept_probe.erasers.guards.requery import Requery
from concept_probe.erasers.published import Published
from concept_probe.families import DiffusionSubject
from concept_probe.types import Concept, Moment, Subspace


@dataclass(frozen=True)
class NegativePrompt(Eraser[DiffusionSubject, Intervention]):
    """Put the prediction under the concept's name in place of the one under the empty prompt.

    >>> guard = NegativePrompt(text="camel, camels")(subject, concept)
    """

    name = "negative_prompt"
    makes = "guard"
    asks = True
    on = "pictures"
    aims = "text"
    leads_by_guidance = True
    origin = "published"
    authors = Published(read_in="memory")
    text: str | None = None
    """The negative prompt; None: the names in the concept's target prompts (fit split), joined by commas."""
    strength: float = 1.0
    """0 leaves the empty prompt, 1 puts the concept in its place; between them predictions are mixed."""

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """ValueError where the concept has no name."""
        text = text_naming(concept, self.text, self.name)
        site = subject.sites("denoiser_out")[0]
        return self.guard(concept, {site: _action(subject, text)}, options={"text": text})


def _action(subject: DiffusionSubject, text: str) -> Change:
    requery = Requery(subject, text)

    def change(x: Tensor, moment: Moment) -> Tensor | None:
        rows = [i for i, branch in enumerate(moment.branches) if branch == "uncond"]
        if not rows or moment.nested:
            return None
        predicted = requery(rows)
        delta = torch.zeros_like(x)
        delta[rows] = predicted - x[rows]
        return delta

    return change
