"""Tensors in the place of those of parameters, put there by blocks that may end in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

Remake = Callable[[Tensor], Tensor]
"""The tensor below -> the one to put in its place."""


@dataclass(eq=False)
class _Hold:
    parameter: nn.Parameter
    below: Tensor
    """What the parameter holds once this is gone."""
    change: Remake | None
    """Makes its tensor from the one below; None where its tensor does not depend on that."""


class Holds:
    """What is held in the place of parameters' own tensors, the earliest first.

    Blocks that end in the order in which a `with` ends them only exchange storage. Where one ends before another that
    was entered after it, the later one's tensor is made anew from what is left below, and in the end each parameter has
    its own storage back.
    """

    def __init__(self) -> None:
        self._all: list[_Hold] = []

    def originals(self) -> list[tuple[nn.Parameter, Tensor]]:
        """The parameters in whose place something is held, each with its own tensor."""
        first: dict[int, tuple[nn.Parameter, Tensor]] = {}
        for hold in self._all:
            first.setdefault(id(hold.parameter), (hold.parameter, hold.below))
        return list(first.values())

    @contextmanager
    def held(
        self, tensors: Sequence[tuple[nn.Parameter, Tensor]], changes: Sequence[Remake | None] | None = None
    ) -> Iterator[None]:
        """Hold `tensors` in place; `changes` are how each is made from the one below, where it is."""
        mine: list[_Hold] = []
        try:
            for (parameter, tensor), change in zip(tensors, changes or [None] * len(tensors), strict=True):
                mine.append(_Hold(parameter, parameter.data, change))
                self._all.append(mine[-1])
                parameter.data = tensor
            yield
        finally:
            for hold in reversed(mine):
                self._let_go(hold)

    def _let_go(self, hold: _Hold) -> None:
        at = self._all.index(hold)
        value, above = hold.below, [h for h in self._all[at + 1 :] if h.parameter is hold.parameter]
        del self._all[at]
        for later in above:
            later.below = value
            if later.change is None:  # what it holds, and all above it, stays
                return
            value = later.change(value)
        hold.parameter.data = value
