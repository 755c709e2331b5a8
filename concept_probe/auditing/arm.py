"""The three sides of an audit: before, after, and the model that was never taught; and what is asked of each."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from concept_probe.evaluation.thinning import most_varied, most_varied_facts
from concept_probe.storage import text_sha256
from concept_probe.types import (
    FORGET_KINDS,
    JUDGED_KINDS,
    RETAIN_KINDS,
    AnswerReader,
    Concept,
    Judge,
    Kind,
    Prompt,
    Query,
    Sampling,
    Split,
    Splits,
)

if TYPE_CHECKING:
    from concept_probe.families import Subject

T = TypeVar("T")


class Erasure(Protocol):
    """What an eraser returns: an intervention or an edit."""

    @property
    def name(self) -> str: ...
    def on(self, subject: Subject) -> AbstractContextManager[Any]: ...
    def describe(self) -> dict[str, Any]: ...


@dataclass(frozen=True, eq=False)
class Arm:
    """A subject, with an erasure on or without one."""

    name: str
    """`before`, `after` or `control`."""
    subject: Subject
    erasure: Erasure | None
    hash: str
    """Of the weights with the erasure on."""

    def on(self) -> AbstractContextManager[Any]:
        return contextlib.nullcontext(self.subject) if self.erasure is None else self.erasure.on(self.subject)

    @property
    def state(self) -> str:
        """Tells apart what behaves differently."""
        what = "" if self.erasure is None else json.dumps(self.erasure.describe(), default=str, sort_keys=True)
        return f"{self.hash} {what}"


def arm(name: str, subject: Subject, erasure: Erasure | None) -> Arm:
    """The arm, with the hash of its weights as they are while the erasure is on."""
    with contextlib.nullcontext() if erasure is None else erasure.on(subject):
        return Arm(name, subject, erasure, subject.weight_hash())


@dataclass(frozen=True, eq=False)
class Plan:
    """What every arm is asked, and who looks at it."""

    concept: Concept
    """With its test split thinned to what is asked."""
    label: str
    recogniser: Judge
    seeds: tuple[int, ...]
    sampling: Sampling
    fit_pictures: int
    """Pictures per side whose activations train probes inside the denoiser."""

    @property
    def reads(self) -> bool:
        """Whether answers are texts."""
        return isinstance(self.recogniser, AnswerReader)

    def prompts(self, kind: Kind) -> tuple[Prompt, ...]:
        return self.concept.prompts(kind, "test")

    def tests(self) -> tuple[Query, ...]:
        """Every test query, kind by kind, prompt by prompt, seed by seed."""
        return tuple(Query(p, s) for kind in JUDGED_KINDS for p in self.prompts(kind) for s in self.seeds)

    def fits(self, most: int | None = None) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
        """Fit-split prompts (of the concept, of others), each kind giving its equal part of `most` per side."""
        mine = _shared([self.concept.prompts(k, "fit") for k in FORGET_KINDS], most or self.fit_pictures)
        others = _shared([self.concept.prompts(k, "fit") for k in RETAIN_KINDS], most or self.fit_pictures)
        return mine, others

    def key(self, arm: Arm, what: str) -> str:
        """Names a result of an arm: the same key, the same result."""
        splits: tuple[Split, ...] = ("fit", "test")
        texts = [(k, s, [asdict(p) for p in self.concept.prompts(k, s)]) for k in JUDGED_KINDS for s in splits]
        parts = (
            what,
            arm.state,
            self.concept.name,
            self.label,
            texts,
            self.seeds,
            asdict(self.sampling),
            self.fit_pictures,
            self.recogniser.name,
            self.recogniser.version,
        )
        return text_sha256(json.dumps(parts, default=str))


def _shared(lists: Sequence[Sequence[Prompt]], most: int) -> tuple[Prompt, ...]:
    lists = [x for x in lists if x]
    if not lists:
        return ()
    each, extra = divmod(most, len(lists))
    return tuple(p for i, x in enumerate(lists) for p in most_varied(x, each + (i < extra)))


def thinned(concept: Concept, most: int) -> Concept:
    """The concept with at most `most` test prompts of each kind (paraphrases, implicit: two thirds of that)."""
    limits = {
        "target": most,
        "paraphrases": -(-most * 2 // 3),
        "implicit": -(-most * 2 // 3),
        "neighbours": most,
        "unrelated": most,
    }
    parts: dict[str, Splits] = {}
    for kind, limit in limits.items():
        splits: Splits = getattr(concept, kind)
        parts[kind] = replace(splits, test=most_varied_facts(splits.test, limit))
    return replace(concept, **parts)  # pyright: ignore[reportArgumentType]


class Memory:
    """Results of arms, by key. Pass one to several audits, and the subject before and the twin are measured once."""

    def __init__(self) -> None:
        self._results: dict[str, object] = {}

    def get(self, key: str, make: Callable[[], T]) -> T:
        if key not in self._results:
            self._results[key] = make()
        return self._results[key]  # pyright: ignore[reportReturnType]

    def __len__(self) -> int:
        return len(self._results)


def chunks(items: Sequence[T], size: int) -> Iterator[tuple[int, Sequence[T]]]:
    """(start, items) in pieces of `size`."""
    for start in range(0, len(items), size):
        yield start, items[start : start + size]
