"""Attacks that change weights without training: each level is a change of every matrix, taken back afterwards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from concept_probe.arguments import Count
from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt
from concept_probe.attacks.budget import lay_out
from concept_probe.attacks.curve import Candidate, CurvePlan, trace_curve
from concept_probe.attacks.weights.parameters import as_held, random_change
from concept_probe.families import Subject
from concept_probe.families.state import swapped


@dataclass(frozen=True, eq=False)
class WeightAttack(Attack[Subject]):
    """Asks the concept's test prompts of the subject with changed weights, level after level; level 0 is the baseline.

    The control is a random change of the same parameters, each of the norm that the last level gave it. Every byte
    comes back.
    """

    pictures: Count = 16
    """Pictures, or texts, per level and for the control, at most."""

    on = "both"
    continues = True
    x_name: ClassVar[str]
    """What levels count."""

    @abstractmethod
    def levels(self, subject: Subject) -> Sequence[int]:
        """Levels in rising order, 0 first."""

    @abstractmethod
    def parameters(self, subject: Subject) -> list[tuple[nn.Parameter, Tensor]]:
        """What is changed, each with what it was before the erasure, or with itself where that plays no part."""

    @abstractmethod
    def changed(self, weight: Tensor, original: Tensor, level: int) -> Tensor:
        """What stands in the place of `weight` at a level above 0, in its shape and dtype."""

    @abstractmethod
    def note(self, subject: Subject) -> str:
        """What a reader of the figures has to know; empty where that is nothing."""

    def run(self, run: AttackRun[Subject]) -> Attempt:
        pairs = self.parameters(run.subject)
        points, each = lay_out(run.budget, self.levels(run.subject), self.pictures)
        queries = run.queries(run.tests(), each)

        def at(level: int) -> Iterator[tuple[nn.Parameter, Tensor]]:
            for parameter, original in pairs:
                yield parameter, as_held(parameter, self.changed(parameter.detach(), original, level))

        def at_random() -> Iterator[tuple[nn.Parameter, Tensor]]:
            for parameter, changed in at(points[-1]):
                yield parameter, as_held(parameter, random_change(parameter.detach(), changed, run.generator))

        plan = CurvePlan(
            points, self.x_name, lambda level: level, lambda level: Candidate(queries, swapped(at(level)) if level else None),
            lambda: Candidate(queries, swapped(at_random())), "random change", lambda: self.note(run.subject),
        )  # fmt: skip
        return trace_curve(run, plan)
