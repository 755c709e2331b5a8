"""What an attack may spend, what it did spend, and how that is laid out along a curve."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from concept_probe.arguments import Natural, Seconds, check_arguments


@dataclass(frozen=True)
class Budget:
    """The most that one attack may spend. 0 pictures is nothing asked; 0 gradient steps is the baseline."""

    queries: Natural = 80
    """Pictures that the attack may have generated, its curve and its control together."""
    gradient_steps: Natural = 60
    """Optimiser steps, each on one batch of examples."""
    examples: Natural = 8
    """Pictures of the concept that the attacker owns."""
    seconds: Seconds = math.inf
    """Wall time. It is checked before every step and every batch of pictures, so one of those may run over."""

    def __post_init__(self) -> None:
        check_arguments(self, "budget")


@dataclass(frozen=True)
class Spent:
    """What an attack spent of its budget, in the same units."""

    queries: int = 0
    gradient_steps: int = 0
    examples: int = 0
    seconds: float = 0.0


class OverBudget(RuntimeError):
    """An attack asked for more than it was given: a mistake in the attack, never in its use."""


class Meter:
    """Counts what one run of an attack spends, and refuses what would exceed the budget."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._start = time.perf_counter()
        self._queries = self._steps = self._examples = 0

    def out_of_time(self) -> bool:
        return time.perf_counter() - self._start >= self.budget.seconds

    def pictures(self, count: int) -> None:
        self._queries += count
        if self._queries > self.budget.queries:
            raise OverBudget(f"{self._queries} pictures asked for, the budget holds {self.budget.queries}")

    def step(self) -> None:
        self._steps += 1
        if self._steps > self.budget.gradient_steps:
            raise OverBudget(f"gradient step {self._steps}, the budget holds {self.budget.gradient_steps}")

    def use_examples(self, count: int) -> None:
        self._examples = count
        if count > self.budget.examples:
            raise OverBudget(f"{count} examples used, the budget holds {self.budget.examples}")

    def spent(self) -> Spent:
        return Spent(self._queries, self._steps, self._examples, time.perf_counter() - self._start)


def curve_points(steps: int, points: int) -> tuple[int, ...]:
    """At most `points` step counts from 0 to `steps`, both included, evenly apart.

    >>> curve_points(60, 4)
    (0, 20, 40, 60)
    """
    if steps <= 0 or points <= 1:
        return (0,) if steps <= 0 else (steps,)
    return tuple(sorted({round(i * steps / (points - 1)) for i in range(points)}))


def lay_out(budget: Budget, points: Sequence[int], most: int) -> tuple[tuple[int, ...], int]:
    """The points to ask at, and how many queries at each and for the control, at most `most`.

    A budget too small for one query at every point keeps only the last.

    >>> lay_out(Budget(queries=9), (0, 4, 8), 16)
    ((0, 4, 8), 2)
    """
    kept = tuple(points)
    if budget.queries // (len(kept) + 1) < 1:
        kept = kept[-1:]
    return kept, min(most, budget.queries // (len(kept) + 1)) or min(1, budget.queries)
