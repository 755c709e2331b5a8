"""Choosing by measurement: which of several outcomes leaves little of the concept and keeps the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from concept_probe.arguments import Count, Nonnegative, SeedNumber, check_arguments
from concept_probe.types import Sampling


class Outcome(Protocol):
    """What was measured with something removed."""

    def residual(self) -> float:
        """Detection of the concept that is left, 0..1."""
        ...

    def retention(self) -> float:
        """Recognition of others as a share of the untouched subject's."""
        ...


AnyOutcome = TypeVar("AnyOutcome", bound=Outcome)


@dataclass(frozen=True)
class Selection:
    """What a choice by measurement asks for, and with what it measures.

    >>> Selection(images=36, goal=0.05)
    Selection(images=36, goal=0.05, retain=0.95, floor=0.9, sampling=Sampling(...), screening=24, seed=0)
    """

    images: Count = 24
    """Answers that ask for the concept in one measurement; those that ask for others come on top."""
    goal: float = 0.2
    """Detection of the concept, 0..1, that may be left; below 0 nothing is little enough."""
    retain: Nonnegative = 0.95
    """Share of their recognition that others have to keep."""
    floor: Nonnegative = 0.9
    """The same where no outcome reaches both marks: what keeps less is no choice."""
    sampling: Sampling = Sampling()
    screening: Count = 24
    """Answers that ask for the concept in the quick look at each of many; a third more of others."""
    seed: SeedNumber = 0
    """Of the noise, of what is drawn at random for comparison, and of the bootstraps."""

    def __post_init__(self) -> None:
        check_arguments(self, "selection")

    def reached(self, tried: Sequence[AnyOutcome]) -> AnyOutcome | None:
        """The first that leaves at most `goal` of the concept and keeps `retain` of the others' recognition."""
        return next((t for t in tried if t.residual() <= self.goal and t.retention() >= self.retain), None)

    def keeps_floor(self, tried: Outcome) -> bool:
        """Whether others keep `floor` of their recognition, or `retain` where that is less."""
        return tried.retention() >= min(self.floor, self.retain)

    def shortfall(self, tried: Outcome) -> float:
        """How far an outcome is from both marks: what is left above `goal`, and twice what others lose below `retain`.

        Twice, because what is lost is lost to every user, and what is left has to be asked for.
        """
        return max(tried.residual() - self.goal, 0.0) + 2 * max(self.retain - tried.retention(), 0.0)

    def missed(self, tried: Outcome) -> tuple[str, ...]:
        """Which marks an outcome does not reach, in words; empty where it reaches both."""
        out = []
        if tried.residual() > self.goal:
            out.append(f"{tried.residual():.0%} of answers still show the concept (goal {self.goal:.0%})")
        if tried.retention() < self.retain:
            under = "" if self.keeps_floor(tried) else f", under the floor of {self.floor:.0%}"
            out.append(f"others keep {tried.retention():.0%} of their recognition (asked: {self.retain:.0%}{under})")
        return tuple(out)

    def best(self, tried: Sequence[AnyOutcome]) -> AnyOutcome | None:
        """The first of least `shortfall` among those that keep `floor`; None where none does.

        Order them from the gentlest to the strongest, or from the surest to the least sure.
        """
        gentle = [t for t in tried if self.keeps_floor(t)]
        return min(gentle, key=lambda t: round(self.shortfall(t), 6), default=None)
