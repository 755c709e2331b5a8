"""The three sides that everything in an audit has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

OfSide = TypeVar("OfSide")
Mapped = TypeVar("Mapped")
Side = Literal["before", "after", "control"]


@dataclass(frozen=True, eq=False)
class Sides(Generic[OfSide]):
    """One thing three times: of the model as it was, of the erased model, and of one that was never taught."""

    before: OfSide
    after: OfSide
    control: OfSide | None = None
    """Of the never-taught twin; None where there is none."""

    def __iter__(self) -> Iterator[OfSide]:
        """Those that there are."""
        yield self.before
        yield self.after
        if self.control is not None:
            yield self.control

    def items(self) -> Iterator[tuple[Side, OfSide]]:
        """The name of each side that there is, and what it has."""
        names: tuple[Side, ...] = ("before", "after", "control")
        yield from zip(names, self, strict=False)

    def map(self, fn: Callable[[OfSide], Mapped]) -> Sides[Mapped]:
        """`fn` of each side that there is."""
        return Sides(fn(self.before), fn(self.after), None if self.control is None else fn(self.control))
