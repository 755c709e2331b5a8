"""What a behaviour is: one number for each query, of what a model does with some of its parts taken out."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from concept_probe.types import Better, Concept, Judge, Query, Sampling

if TYPE_CHECKING:
    from concept_probe.families import Subject

Measuring = Callable[[Sequence[int]], Tensor]
"""Places of queries (k) -> the behaviour on each, (k,), as the subject is now."""


@dataclass(frozen=True, eq=False)
class Setting:
    """Of whom, and on what, a behaviour is measured."""

    subject: Subject
    concept: Concept
    queries: tuple[Query, ...]
    sampling: Sampling
    judge: Judge | None = None
    """Who judges answers, where somebody has to."""


class Behaviour(abc.ABC):
    """Something that a model does, as a number; more of it is more of the concept, or of what the model did before."""

    name: ClassVar[str]
    on: ClassVar[Literal["pictures", "texts", "both"]] = "both"
    unit: ClassVar[str] = ""
    smooth: ClassVar[bool] = False
    """Whether it has a slope in what is taken out."""
    reads_only: ClassVar[bool] = False
    """Whether the denoiser has no part in it: parts of it would be taken out in vain."""
    better: ClassVar[Better] = "higher"

    @abc.abstractmethod
    def prepared(self, setting: Setting) -> Measuring:
        """What measures it; called with nothing taken out.

        Raises ValueError for a setting in which it can't be measured.
        """

    def judges(self) -> bool:
        """Whether somebody has to judge answers."""
        return False
