"""What searches for a prompt have in common: words whose denoising error of the attacker's pictures is low."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.arguments import Count
from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt
from concept_probe.attacks.budget import Meter, curve_points, lay_out
from concept_probe.attacks.curve import Candidate, CurvePlan, trace_curve
from concept_probe.attacks.examples import examples_of
from concept_probe.attacks.labels import relabelled
from concept_probe.attacks.search.objective import Goal, SearchObjective
from concept_probe.attacks.search.slots import Slot
from concept_probe.attacks.search.steps import SearchStep
from concept_probe.attacks.search.vocabulary import Vocabulary, names_of
from concept_probe.families import DiffusionSubject
from concept_probe.families.progress import bars
from concept_probe.types import Prompt, Query


@dataclass(frozen=True, eq=False)
class HardPrompt(Attack[DiffusionSubject]):
    """Searches for words, by the gradient of the denoising error of the attacker's pictures through all that is on.

    Everything that is read while searching is a prompt that can be typed, so guards see it as they see any other.
    Of the words that were looked at, those are asked with whose error on one fixed draw is the lowest. Random words,
    others for every picture, are the control, and random words are where it starts.
    """

    words: Count = 5
    """Words that are searched for."""
    points: Count = 3
    """Points of the curve, the random start (0 steps) included."""
    pictures: Count = 16
    """Pictures per point and for the control, at most."""
    batch: Count = 8
    """Pictures per gradient step."""

    on = "pictures"
    needs_examples = True
    brings = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.words < 1:
            raise ValueError(f"attack {self.name!r}: words is {self.words}; give 1 or more")

    def run(self, run: AttackRun[DiffusionSubject]) -> Attempt:
        subject, concept, generator = run.subject, run.concept, run.generator
        fit = [self.slot(p) for p in relabelled(concept.prompts("target", "fit"), run.label)]
        test = [self.slot(p) for p in run.tests()]
        examples = examples_of(concept, run.budget)
        run.meter.use_examples(len(examples))
        vocabulary = Vocabulary.of(subject, (*names_of(concept), *spread_among([*fit, *test])))
        objective = SearchObjective.of(
            subject, examples, fit, self.words, self.batch, vocabulary, self.goal(subject, fit)
        )
        start = vocabulary.random(self.words, generator)
        search = PromptSearch(objective, start, self.stepper(vocabulary), generator, run.meter)
        points, each = lay_out(run.budget, curve_points(run.budget.gradient_steps, self.points), self.pictures)

        def at(found: Sequence[Tensor]) -> Candidate:
            pairs = ((test[i % len(test)], vocabulary.spell(found[i % len(found)])) for i in range(each if test else 0))
            return Candidate([Query(s.filled(w), self.seed + i // len(test)) for i, (s, w) in enumerate(pairs)])

        def others() -> Candidate:
            return at([vocabulary.random(self.words, generator) for _ in range(max(1, each))])

        plan = CurvePlan(
            points, "gradient steps", search.run, lambda _: at([search.best]), others, "random words",
            lambda: f"words: {' '.join(vocabulary.spell(search.best))}",
        )  # fmt: skip
        return trace_curve(run, plan)

    @abstractmethod
    def slot(self, prompt: Prompt) -> Slot:
        """Where in a prompt of the concept the words stand."""

    @abstractmethod
    def goal(self, subject: DiffusionSubject, slots: Sequence[Slot]) -> Goal:
        """What is descended."""

    @abstractmethod
    def stepper(self, vocabulary: Vocabulary) -> SearchStep:
        """A search, at its start."""


def spread_among(slots: Sequence[Slot]) -> tuple[str, ...]:
    """Words of prompts among which searched words are spread: one that stands there already could not be told apart."""
    return tuple(dict.fromkeys(w.lower() for s in slots if s.every for w in s.after.split()))


class PromptSearch:
    """Steps of a search, and the best words so far."""

    def __init__(
        self, objective: SearchObjective, start: Tensor, step: SearchStep, generator: torch.Generator, meter: Meter
    ) -> None:
        self.objective, self.step, self.generator, self.meter = objective, step, generator, meter
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
        if not len(self.objective.latents):
            return 0
        with bars() as bar:
            task = bar.add_task("prompt search", total=goal, completed=self.steps)
            while self.steps < goal and not self.meter.out_of_time():
                if self.lowest is None:
                    self._judge()
                self.meter.step()
                self.now = self.step(self.now, self.objective.gradients(self.now, self.generator))
                self._judge()
                self.steps += 1
                bar.advance(task)
        return self.steps

    def _judge(self) -> None:
        key = tuple(self.now.tolist())
        if key in self._seen:
            return
        self._seen.add(key)
        found = self.objective.read(self.now, torch.Generator().manual_seed(self._fixed))
        if self.lowest is None or found < self.lowest:
            self.best, self.lowest = self.now, found
