"""What a number of an audit was made of, so that anybody can make it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

HowDrawn = Literal["rate", "auroc", "mean", "floor", "share", "certain", "values"]


@dataclass(frozen=True, eq=False)
class NumberSource:
    """Observations, and what was made of them; `evaluation.sources` makes it again."""

    how: HowDrawn
    """Method of the bootstrap: `rate` of hits, `auroc` of readings, `share` of values, `mean` of parts, a part with a
    `floor`, a `certain` number, or the mean of `values` with an interval."""
    tensors: tuple[Tensor, ...] = ()
    key: str = ""
    """Names the draws: numbers with the same key are paired."""
    arm: str = ""
    parts: tuple[NumberSource, ...] = ()
    number: float = 0.0
    """The floor, or how many were counted."""


@dataclass(frozen=True, eq=False)
class FindingSources:
    """Of one finding; None for a side whose number has no draws of its own."""

    before: NumberSource | None
    after: NumberSource | None
    control: NumberSource | None
