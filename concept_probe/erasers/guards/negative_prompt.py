"""Negative prompt: guidance leads away from the concept instead of away from the empty prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.finetune.replay import denoiser, read
from concept_probe.families import DiffusionSubject
from concept_probe.types import Concept, Moment, Prompt, Subspace


@dataclass(frozen=True)
class NegativePrompt(Eraser[DiffusionSubject, Intervention]):
    """Put the prediction under the concept's name in place of the one under the empty prompt.

    >>> guard = NegativePrompt(text="camel, camels")(subject, concept)
    """

    name = "negative_prompt"
    makes = "guard"
    on = "pictures"
    aims = "text"
    origin = "published"
    text: str | None = None
    """The negative prompt; None: the names in the concept's target prompts (fit split), joined by commas."""
    strength: float = 1.0
    """0 leaves the empty prompt, 1 puts the concept in its place; between them predictions are mixed."""

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """ValueError where the concept has no name."""
        text = named(concept, self.text, self.name)
        site = subject.sites("denoiser_out")[0]
        return self.guard(concept, {site: _action(subject, text)}, options={"text": text})


def named(concept: Concept, text: str | None, method: str) -> str:
    """`text`, or the names that the concept's target prompts (fit split) use, joined by commas."""
    if text is not None:
        return text
    names = dict.fromkeys(prompt.subject for prompt in concept.target.fit if prompt.subject)
    if not names:
        raise ValueError(f"{method}: concept {concept.name!r} has no target prompt with its name; give `text`")
    return ", ".join(names)


def _action(subject: DiffusionSubject, text: str) -> Change:
    asker = Asker(subject, text, "negative_prompt")

    def change(x: Tensor, moment: Moment) -> Tensor | None:
        rows = [i for i, branch in enumerate(moment.branches) if branch == "uncond"]
        if not rows or moment.nested:
            return None
        said = asker(rows)
        delta = torch.zeros_like(x)
        delta[rows] = said - x[rows]
        return delta

    return change


class Asker:
    """Asks the denoiser again what it says under a fixed text."""

    def __init__(self, subject: DiffusionSubject, text: str, method: str) -> None:
        self.subject, self.text, self.method = subject, text, method
        self.model = denoiser(subject, method)

    def __call__(self, rows: Sequence[int]) -> Tensor:
        """Predictions (n, c, h, w) for these rows of the pass under way. Not to be asked in a pass that is `nested`."""
        condition = read(self.subject, [Prompt(self.text)], self.method)
        index = torch.zeros(len(rows), dtype=torch.long, device=condition.states.device)
        return self.model.repredict(condition.rows(index), rows)
