"""A prompt under which the erased model predicts what the original does (Prompting4Debugging, arXiv 2309.06135)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Self, cast

import torch
from torch import Tensor

from concept_probe.arguments import Count
from concept_probe.attacks.search.objective import Goal
from concept_probe.attacks.search.search import HardPrompt
from concept_probe.attacks.search.slots import Slot, among, instead
from concept_probe.attacks.search.steps import SearchStep, projected_adam
from concept_probe.attacks.search.vocabulary import Vocabulary
from concept_probe.families import DiffusionSubject, Subject
from concept_probe.types import Prompt


@dataclass(frozen=True, eq=False)
class P4D(HardPrompt):
    """Searches for words with which the erased model says of noised pictures what the original says of them for the
    concept's own prompts.

    Vectors descend along gradients that are taken at the words nearest to them, as in `TokenSearch`. The original is
    asked only what it predicts; everything that is on stays on in the model that is attacked.
    """

    words: Count = 8
    """Words that are searched for."""
    every: int = 0
    """0: the words are the whole prompt (P4D-N). K: they stand in the concept's prompts, one after every K words of
    them, and what is left behind the end (P4D-K)."""
    rate: float = 0.3
    """Adam's step, as a multiple of the root mean square of the embeddings' entries."""
    original: DiffusionSubject | None = None
    """The attacker's copy of the model before the erasure; None: the attacked subject with its taps asleep and what
    edits have put aside, see `Subject.pristine`."""

    name = "p4d"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every < 0:
            raise ValueError(f"attack {self.name!r}: every is {self.every}; give 0 or more")

    def holding(self, copy: Subject) -> Self:
        return replace(self, original=cast(DiffusionSubject, copy))

    def slot(self, prompt: Prompt) -> Slot:
        return among(prompt, self.every) if self.every else instead(prompt)

    def goal(self, subject: DiffusionSubject, slots: Sequence[Slot]) -> Goal:
        other = self.original or subject
        if other.latent_shape != subject.latent_shape:
            raise ValueError(
                f"attack {self.name!r}: {other.name!r} and {subject.name!r} have latents of other shapes, so what one "
                "predicts is no goal for the other; give the model that was erased"
            )
        named = [slot.prompt for slot in slots]

        def before() -> AbstractContextManager[None]:
            return subject.pristine() if self.original is None else nullcontext()

        def far(latents: Tensor, texts: Sequence[int], prompts: Sequence[Prompt], generator: torch.Generator) -> Tensor:
            seen, times, _ = subject.schedule.training_pair(latents, generator)
            with torch.no_grad(), before():
                wanted = other.predict(seen, times, other.encode([named[i] for i in texts]))
            said = subject.predict(seen, times, subject.encode(prompts))
            return (said - wanted.to(said)).float().square().mean()

        return far

    def stepper(self, vocabulary: Vocabulary) -> SearchStep:
        return projected_adam(vocabulary, self.rate)
