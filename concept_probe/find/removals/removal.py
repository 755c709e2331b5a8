"""What a removal is: what stands in the place of a part that is taken out."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from concept_probe.arguments import check_arguments
from concept_probe.types import Site


class Elsewhere(Protocol):
    """What coefficients are in other rows than those at hand; each is of the shape of the coefficients, or broadcasts."""

    def mean(self) -> Tensor:
        """Of other prompts, in rows of the same kind of token and step."""
        ...

    def spread(self) -> Tensor:
        """Their standard deviation there."""
        ...

    def another(self) -> Tensor:
        """Those of one other prompt, drawn for each prompt."""
        ...

    def normal(self) -> Tensor:
        """Standard normal draws, named by a seed, the site, the prompt and the step."""
        ...

    def typical(self) -> Tensor:
        """Their mean on the concept's own prompts, over the rows where they are not zero."""
        ...


@dataclass(frozen=True)
class Removal(abc.ABC):
    """A way to take a part out of a tensor.

    A part is `c w`: a coefficient c, read where the model runs, times a vector w that it writes. A removal says what
    stands in place of c while the model runs, and what can be done to w where the weights that hold it are edited.

    >>> Reflect(factor=1.0).coefficients(torch.tensor([2.0]), elsewhere)
    tensor([-2.])
    """

    name: ClassVar[str]
    reads: ClassVar[Literal["nothing", "others", "own"]] = "nothing"
    """Whose coefficients it has to know: those of other prompts, of the concept's own, or no others than those at hand."""
    draws: ClassVar[bool] = False
    """Whether what it puts in is drawn at random."""
    joint: ClassVar[bool] = False
    """Whether parts are taken out together, as the span of what they write, whoever writes it."""
    on: ClassVar[tuple[Literal["columns", "directions"], ...]] = ()
    """What of the weights it can be done to."""

    shifts: ClassVar[bool] = False
    """Whether, in weights, what columns add on average goes into the bias."""

    def __post_init__(self) -> None:
        check_arguments(self, self.name)

    @abc.abstractmethod
    def coefficients(self, c: Tensor, elsewhere: Elsewhere) -> Tensor:
        """What stands in place of the coefficients c (..., m), in their shape or one that broadcasts to it."""

    @property
    def times(self) -> float:
        """Factor on what is done to a vector in the weights."""
        return 1.0

    def change(self, site: Site, columns: Tensor) -> Tensor:
        """What is added to columns (d, m) of the matrix at `site`, up to `times`: by default they are taken out."""
        return -columns
