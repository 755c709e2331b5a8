"""Who looks at pictures or reads texts, and what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from concept_probe.types.prompts import Query


@dataclass(frozen=True)
class Trial:
    """A query, and what a recogniser saw in the answer."""

    query: Query
    seen: str
    """The recogniser's label, or `none`; a recogniser that failed is `error`."""
    probability: float
    """The recogniser's probability of the concept in question (or of `query.prompt.label`)."""


class Recogniser(Protocol):
    """Looks at pictures and names what is in them."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """What it can see; the last is `none`."""
        ...

    def probabilities(self, images: Tensor) -> Tensor:
        """images (n, 3, h, w) in 0..1 -> (n, len(labels)), rows sum to 1."""
        ...


@runtime_checkable
class Classifier(Protocol):
    """A recogniser whose judgement can be followed: it has a gradient in the picture."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """What it can see; the last is `none`."""
        ...

    def logits(self, images: Tensor) -> Tensor:
        """images (n, 3, h, w) in 0..1 -> (n, len(labels)) before the softmax, with gradients in the images."""
        ...


@runtime_checkable
class OwnPictures(Protocol):
    """A recogniser that says whose pictures it was made for. Only one that does is ever taken without being named."""

    def serves(self, subject: Any) -> bool:
        """Whether pictures of `subject` (a `families.Subject`) are what it was trained and measured on."""
        ...


@runtime_checkable
class AnswerReader(Protocol):
    """Reads texts and says what is in them."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """What it can see; the last is `none`."""
        ...

    def read(self, texts: Sequence[str], queries: Sequence[Query], concept: str | None = None) -> tuple[Trial, ...]:
        """What the text written for each query says; `probability` is of `concept`, or of the query's own label."""
        ...


Judge = Recogniser | AnswerReader
"""Who judges answers: pictures need the one, texts the other."""
