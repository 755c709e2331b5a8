"""What searches for a prompt have in common: words whose denoising error of the attacker's pictures is low."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.budget import Attempt, Budget, Meter, lay_out
from concept_probe.attacks.curve import Candidate, CurvePlan, trace_curve
from concept_probe.attacks.examples import examples_of
from concept_probe.attacks.labels import label_of, relabelled
from concept_probe.attacks.search.objective import Goal, Objective
from concept_probe.attacks.search.slots import Slot
from concept_probe.attacks.search.steps import SearchStep
from concept_probe.attacks.search.vocabulary import Vocabulary, names_of
from concept_probe.families.progress import bars
from concept_probe.types import Concept, Prompt, Query

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class HardPrompt(Attack):
    """Searches for words, by the gradient of the denoising error of the attacker's pictures through all that is on.

    Everything that is read while searching is a prompt that can be typed, so guards see it as they see any other.
    Of the words that were looked at, those are asked with whose error on one fixed draw is the lowest. Random words,
    others for every picture, are the control, and random words are where it starts.
    """

    words: int = 5
    """Words that are searched for."""
    points: int = 3
    """Points of the curve, the random start (0 steps) included."""
    pictures: int = 16
    """Pictures per point and for the control, at most."""
    batch: int = 8
    """Pictures per gradient step."""

    needs_examples: ClassVar[bool] = True
    brings: ClassVar[bool] = True
    on: ClassVar = "pictures"

    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt:
        meter, generator = Meter(budget), torch.Generator().manual_seed(self.seed)
        if self.words < 1:
            raise ValueError(f"attack {self.name!r}: words is {self.words}; give 1 or more")
        label = label_of(concept)
        fit = [self.slot(p) for p in relabelled(concept.prompts("target", "fit"), label)]
        test = [self.slot(p) for p in relabelled(concept.prompts("target", "test"), label)]
        examples = examples_of(concept, budget, self.name)
        meter.use_examples(len(examples))
        vocabulary = Vocabulary.of(subject, (*names_of(concept), *spread_among([*fit, *test])))
        error = Objective.of(subject, examples, fit, self.words, self.batch, vocabulary, self.goal(subject, fit))
        hunt = PromptSearch(error, vocabulary.random(self.words, generator), self.stepper(vocabulary), generator, meter)
        points, each = lay_out(budget, self.points, self.pictures)

        def at(found: Sequence[Tensor]) -> Candidate:
            pairs = ((test[i % len(test)], vocabulary.spell(found[i % len(found)])) for i in range(each if test else 0))
            return Candidate([Query(s.filled(w), self.seed + i // len(test)) for i, (s, w) in enumerate(pairs)])

        def others() -> Candidate:
            return at([vocabulary.random(self.words, generator) for _ in range(max(1, each))])

        way = CurvePlan(
            points, "gradient steps", hunt.run, lambda _: at([hunt.best]), others, "random words",
            lambda: f"words: {' '.join(vocabulary.spell(hunt.best))}",
        )  # fmt: skip
        return trace_curve(self, subject, concept, budget, meter, way)

    @abstractmethod
    def slot(self, prompt: Prompt) -> Slot:
        """Where in a prompt of the concept the words stand."""

    @abstractmethod
    def goal(self, subject: Subject, slots: Sequence[Slot]) -> Goal:
        """What is descended. Raises TypeError for a subject that it can't be read of."""

    @abstractmethod
    def stepper(self, vocabulary: Vocabulary) -> SearchStep:
        """A search, at its start."""


def spread_among(slots: Sequence[Slot]) -> tuple[str, ...]:
    """Words of prompts among which searched words are spread: one that stands there already could not be told apart."""
    return tuple(dict.fromkeys(w.lower() for s in slots if s.every for w in s.after.split()))


class PromptSearch:
    """Steps of a search, and the best words so far."""

    def __init__(
        self, error: Objective, start: Tensor, step: SearchStep, generator: torch.Generator, meter: Meter
    ) -> None:
        self.error, self.step, self.generator, self.meter = error, step, generator, meter
        self.now = self.best = start
        """Ids (L,) that are looked at, and those that read best."""
        self.steps = 0
        """Made so far."""
        self.lowest: float | None = None
        """Error of the best words on the fixed draw; None before it was read."""
        self._fixed = int(torch.randint(2**31, (1,), generator=generator))
        self._seen: set[tuple[int, ...]] = set()

    def run(self, goal: int) -> int:
        """Go on until `goal` steps have been made in all, or the time is spent; returns how many have been made."""
        if not len(self.error.latents):
            return 0
        with bars() as bar:
            task = bar.add_task("prompt search", total=goal, completed=self.steps)
            while self.steps < goal and not self.meter.out_of_time():
                if self.lowest is None:
                    self._judge()
                self.meter.step()
                self.now = self.step(self.now, self.error.gradients(self.now, self.generator))
                self._judge()
                self.steps += 1
                bar.advance(task)
        return self.steps

    def _judge(self) -> None:
        key = tuple(self.now.tolist())
        if key in self._seen:
            return
        self._seen.add(key)
        found = self.error.read(self.now, torch.Generator().manual_seed(self._fixed))
        if self.lowest is None or found < self.lowest:
            self.best, self.lowest = self.now, found
