"""The three sides of an audit: before, after, and the model that was never taught; and what is asked of each."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from concept_probe.types import AnswerReader, Concept, Kind, Looks, Prompt, Query, Sampling, Split, Splits

if TYPE_CHECKING:
    from concept_probe.families import Subject

T = TypeVar("T")
SHOWS: tuple[Kind, ...] = ("target", "paraphrases", "implicit")
"""Kinds of prompts that ask for the concept."""
KEEPS: tuple[Kind, ...] = ("neighbours", "unrelated")
"""Kinds of prompts that must work as before."""


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


def thin(prompts: Sequence[Prompt], most: int) -> tuple[Prompt, ...]:
    """At most `most` of the prompts, in their order, such that every template, style and object has its share.

    They are taken one by one, each time the one whose most taken word was taken least often so far, words that
    all of them have left out. (Every m-th of a list that goes through styles in turn would be of one style.)
    """
    return _spread(prompts, most, [""] * len(prompts))


def of_facts(prompts: Sequence[Prompt], most: int) -> tuple[Prompt, ...]:
    """As `thin`, but another wording of a fact is taken only once every fact has as many: wordings count as one."""
    return _spread(prompts, most, [p.fact or p.text for p in prompts])


def _spread(prompts: Sequence[Prompt], most: int, groups: Sequence[str]) -> tuple[Prompt, ...]:
    if len(prompts) <= most:
        return tuple(prompts)
    words = [frozenset(re.findall(r"\w+", p.text.casefold())) for p in prompts]
    common = frozenset.intersection(*words)
    words = [w - common for w in words]
    taken: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    left = dict.fromkeys(range(len(prompts)))
    for _ in range(most):
        best = min(left, key=lambda i: (seen[groups[i]], sorted((taken[w] for w in words[i]), reverse=True)))
        del left[best]
        taken.update(words[best])
        seen[groups[best]] += 1
    return tuple(p for i, p in enumerate(prompts) if i not in left)


@dataclass(frozen=True, eq=False)
class Plan:
    """What every arm is asked, and who looks at it."""

    concept: Concept
    """With its test split thinned to what is asked."""
    label: str
    recogniser: Looks
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
        return tuple(Query(p, s) for kind in (*SHOWS, *KEEPS) for p in self.prompts(kind) for s in self.seeds)

    def fits(self, most: int | None = None) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
        """Fit-split prompts (of the concept, of others), each kind giving its equal part of `most` per side."""
        mine = _shared([self.concept.prompts(k, "fit") for k in SHOWS], most or self.fit_pictures)
        others = _shared([self.concept.prompts(k, "fit") for k in KEEPS], most or self.fit_pictures)
        return mine, others

    def key(self, arm: Arm, what: str) -> str:
        """Names a result of an arm: the same key, the same result."""
        splits: tuple[Split, ...] = ("fit", "test")
        texts = [(k, s, [asdict(p) for p in self.concept.prompts(k, s)]) for k in (*SHOWS, *KEEPS) for s in splits]
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
        return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _shared(lists: Sequence[Sequence[Prompt]], most: int) -> tuple[Prompt, ...]:
    lists = [x for x in lists if x]
    if not lists:
        return ()
    each, extra = divmod(most, len(lists))
    return tuple(p for i, x in enumerate(lists) for p in thin(x, each + (i < extra)))


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
        parts[kind] = replace(splits, test=of_facts(splits.test, limit))
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
