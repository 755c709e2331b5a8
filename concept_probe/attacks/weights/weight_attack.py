"""Attacks that change weights without training: each level is a change of every matrix, taken back afterwards."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.budget import Attempt, Budget, Meter
from concept_probe.attacks.curve import Candidate, CurvePlan, shares, trace_curve
from concept_probe.attacks.labels import label_of, relabelled
from concept_probe.attacks.queries import askable, query_rounds
from concept_probe.attacks.weights.parameters import restoring, shake
from concept_probe.types import Concept

if TYPE_CHECKING:
    from concept_probe.families import Subject

WeightPairs = Sequence[tuple[nn.Parameter, Tensor]]
"""Parameters, each with what it was before the erasure."""


@dataclass(frozen=True, eq=False)
class WeightAttack(Attack):
    """Asks the concept's test prompts of the subject with changed weights, level after level; level 0 is the baseline.

    The control is a random change of the same parameters, each of the norm that the last level gave it. Every byte
    comes back.
    """

    pictures: int = 16
    """Pictures, or texts, per level and for the control, at most."""

    needs_examples: ClassVar[bool] = False
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

    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt:
        meter, pairs = Meter(budget), self.parameters(subject)
        test = relabelled(concept.prompts("target", "test"), label_of(concept))
        points, each = shares(budget, self.levels(subject), self.pictures)
        queries = query_rounds(test, askable(self, test, each), self.seed)

        def at(level: int) -> Candidate:
            return Candidate(queries, self._on(pairs, level, shaken=False) if level else None)

        way = CurvePlan(
            points, self.x_name, lambda level: level, at,
            lambda: Candidate(queries, self._on(pairs, points[-1], shaken=True)), "random change",
            lambda: self.note(subject),
        )  # fmt: skip
        return trace_curve(self, subject, concept, budget, meter, way)

    @contextlib.contextmanager
    def _on(self, pairs: WeightPairs, level: int, *, shaken: bool) -> Iterator[None]:
        """The parameters at a level, or a random change of the same norms."""
        parameters = [p for p, _ in pairs]
        with restoring(parameters) as held:
            if level:
                with torch.no_grad():
                    for parameter, original in pairs:
                        parameter.copy_(self.changed(parameter.detach(), original, level))
                if shaken:
                    shake(parameters, held, torch.Generator().manual_seed(self.seed))
            yield
