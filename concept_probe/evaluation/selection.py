"""Choosing by measurement: which of several outcomes leaves little of the concept and keeps the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Outcome(Protocol):
    """What a removal did to the pictures of a panel."""

    def left(self) -> float: ...
    def retained(self) -> float: ...


T = TypeVar("T", bound=Outcome)


def reached(tried: Sequence[T], goal: float, retain: float) -> T | None:
    """The first that leaves at most `goal` of the concept and keeps `retain` of the others' recognition."""
    return next((t for t in tried if t.left() <= goal and t.retained() >= retain), None)


def shortfall(tried: Outcome, goal: float, retain: float) -> float:
    """How far an outcome is from both marks: what is left above `goal`, and twice what others lose below `retain`.

    Twice, because what is lost is lost to every user, and what is left has to be asked for.
    """
    return max(tried.left() - goal, 0.0) + 2 * max(retain - tried.retained(), 0.0)


def best(tried: Sequence[T], goal: float, retain: float, floor: float) -> T | None:
    """The first of least `shortfall` among those that keep `floor`; None where none does.

    Order them from the gentlest to the strongest, or from the surest to the least sure.
    """
    gentle = [t for t in tried if t.retained() >= min(floor, retain)]
    return min(gentle, key=lambda t: round(shortfall(t, goal, retain), 6), default=None)
