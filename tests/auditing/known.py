"""Subjects whose truth is known: real tiny models whose pictures show what their text states are nearest to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from concept_probe.families import UNetSubject
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import JUDGED_KINDS, KINDS, SPLITS, Concept, Prompt, Query, Sampling, Splits

LABELS = ("cat", "dog", "sun", "none")


class Known(UNetSubject):
    """Runs the tiny model, so that taps see everything, then paints the label that belongs to the text states.

    What it knows is a table from text states to labels, made from its own text encoder when it is made; a
    concept that is not in the table is read as the nearest thing that is.
    """

    def __init__(self, seed: int, concept: Concept, without: str | None = None) -> None:
        made = tiny_sd(seed)
        super().__init__(made.name, made.pipeline)
        prompts = [p for kind in KINDS for split in SPLITS for p in concept.prompts(kind, split)]
        prompts = [p for p in prompts if without is None or p.label != without]
        self.labels = [p.label or "none" for p in prompts]
        with torch.no_grad():
            self.states = self.encode(prompts).states.flatten(1)
        self.pictures = 0

    def generate(self, queries: Sequence[Query], sampling: Sampling = Sampling()) -> Tensor:
        self.pictures += len(queries)
        images = super().generate(queries, sampling)
        with torch.no_grad():
            condition, index = self.text.distinct(self, [q.prompt for q in queries])
            states = condition.states.flatten(1)[index]
            nearest = torch.cdist(states.nan_to_num(), self.states).argmin(1).tolist()
            broken = (
                torch.cdist(states.nan_to_num(), self.states).amin(1) > 3 * torch.pdist(self.states).amax()
            ).tolist()
        for row, (i, bad) in enumerate(zip(nearest, broken, strict=True)):
            images[row] = (LABELS.index("none" if bad else self.labels[i]) + 0.5) / len(LABELS)
        return images


@dataclass(frozen=True)
class Reader:
    """Reads what `Known` paints."""

    name: str = "reader"
    version: str = "1"
    labels: tuple[str, ...] = LABELS

    def probabilities(self, images: Tensor) -> Tensor:
        shade = images.float().mean((1, 2, 3)) * len(self.labels)
        return torch.nn.functional.one_hot(shade.long().clamp(0, len(self.labels) - 1), len(self.labels)).float()


def concept() -> Concept:
    """The tiny concept with six test sentences of every kind."""
    made = tiny_concept()

    def more(splits: Splits, word: str) -> Splits:
        first = splits.test[0]
        texts = [f"{a} {word} {b}".strip() for a in ("that", "see the", "this") for b in ("", "here")]
        return replace(splits, test=tuple(Prompt(t, word if first.subject else None, first.label) for t in texts))

    words = {
        "target": "cat",
        "paraphrases": "kitty",
        "implicit": "pet that purrs",
        "neighbours": "dog",
        "unrelated": "sun",
    }
    return replace(made, **{kind: more(getattr(made, kind), word) for kind, word in words.items()})


def wide_concept() -> Concept:
    """The same with eighteen test sentences of every kind."""
    made = concept()
    wide = {kind: getattr(made, kind) for kind in JUDGED_KINDS}
    more = {
        kind: tuple(replace(p, text=f"{p.text} {word}".strip()) for word in ("", "b", "c") for p in splits.test)
        for kind, splits in wide.items()
    }
    return replace(made, **{kind: replace(splits, test=more[kind]) for kind, splits in wide.items()})
