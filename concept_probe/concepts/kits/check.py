"""What is wrong with a concept file before anything is measured by it."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from concept_probe.concepts.kits.templates import LEAST
from concept_probe.concepts.kits.wording import said_of
from concept_probe.types import JUDGED_KINDS, KINDS, SPLITS, Concept, Kind, Prompt, fingerprint

CHECKS = (
    "splits are disjoint", "prompts are enough", "subjects are named", "descriptions are silent", "templates are balanced",
    "words are known", "prompts are whole", "labels are known",
)  # fmt: skip
"""What is looked at, in the order of the table."""
OF_MODEL, OF_RECOGNISER = CHECKS[5:7], CHECKS[7:]
_NAMED: tuple[Kind, ...] = ("target", "paraphrases", "neighbours", "unrelated")
"""Kinds whose prompts name what they show."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    check: str
    """Of `CHECKS`."""
    where: str
    """Kind and split."""
    found: str


class PromptReader(Protocol):
    """What is needed of a model: how it reads prompts."""

    def tokenise(self, prompts: Sequence[Prompt], /) -> Any:
        """Raises ValueError for a prompt that it can't read, warns of one that it cuts."""
        ...


def check_kit(
    concept: Concept, *, reader: PromptReader | None = None, tokenizers: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None, least: int = LEAST,
) -> tuple[Fault, ...]:  # fmt: skip
    """All that is wrong with a concept's prompts.

    `reader` and its `tokenizers`, by name, are a model's, whose words are then looked up; `labels` are a recogniser's.
    What is not given is not looked at. `least` is how many prompts of each kind and split are enough.
    """
    faults = [
        *_overlaps(concept),
        *_too_few(concept, least),
        *_unnamed(concept),
        *_telling(concept),
        *_unbalanced(concept),
    ]
    faults += _unknown_words(concept, tokenizers or {})
    if reader is not None:
        faults += _cut(concept, reader)
    if labels is not None:
        faults += _unknown_labels(concept, labels)
    return tuple(sorted(faults, key=lambda f: CHECKS.index(f.check)))


def _lists(concept: Concept, kinds: Sequence[Kind] = KINDS) -> Iterator[tuple[Kind, str, tuple[Prompt, ...]]]:
    for kind in kinds:
        for split in SPLITS:
            yield kind, f"{kind}, {split}", concept.prompts(kind, split)


def _overlaps(concept: Concept) -> Iterator[Fault]:
    seen: dict[str, tuple[str, str]] = {}
    for kind, where, prompts in _lists(concept):
        for p in prompts:
            # What stands in for a concept may be one sentence in all three; it is nobody's test.
            mark = f"{kind if kind == 'anchor' else ''}{fingerprint(p.text)}"
            before = seen.setdefault(mark, (where, p.text))
            if before[0] != where and kind != "anchor":
                yield Fault(CHECKS[0], where, f"{p.text!r} stands in {before[0]} too")


def _too_few(concept: Concept, least: int) -> Iterator[Fault]:
    for _, where, prompts in _lists(concept):
        count = len({fingerprint(p.text) for p in prompts})
        if count < least:
            yield Fault(CHECKS[1], where, f"{count} different prompts, and {least} are asked for")


def _unnamed(concept: Concept) -> Iterator[Fault]:
    for _, where, prompts in _lists(concept, _NAMED):
        for p in prompts:
            if p.answers:  # a question is right or wrong by its answer
                continue
            if p.subject is None:
                yield Fault(CHECKS[2], where, f"{p.text!r} has no subject")
            elif not re.search(rf"(?<!\w){re.escape(p.subject)}(?!\w)", p.text):
                yield Fault(CHECKS[2], where, f"{p.text!r} doesn't hold {p.subject!r} as whole words")


def _telling(concept: Concept) -> Iterator[Fault]:
    for _, where, prompts in _lists(concept, ("implicit",)):
        for p in prompts:
            said = said_of(p.text, [concept.name])
            if said:
                yield Fault(CHECKS[3], where, f"{p.text!r} says {', '.join(map(repr, said))} of the name")


def frame_of(prompt: Prompt) -> str:
    """A sentence with a place where its thing stands, with the article.

    >>> frame_of(Prompt("a photo of an owl", "owl")) == frame_of(Prompt("a photo of a church", "church"))
    True
    """
    words = re.escape(prompt.subject or "")
    return (
        re.sub(rf"(?<!\w)(?:(?:a pair of|an?|the)\s+)?{words}(?!\w)", "{}", prompt.text, count=1)
        if words
        else prompt.text
    )


def _unbalanced(concept: Concept) -> Iterator[Fault]:
    for split in SPLITS:
        own = _shares(concept.prompts("target", split))
        for kind in ("neighbours", "unrelated"):
            other = _shares(concept.prompts(kind, split))
            if not own or not other:  # too few, or questions, each of which asks something else
                continue
            odd = [f for f in dict.fromkeys((*own, *other)) if own.get(f) != other.get(f)]
            if odd:
                more = f", and {len(odd) - 1} more" if len(odd) > 1 else ""
                yield Fault(
                    CHECKS[4], f"{kind}, {split}",
                    f"{odd[0]!r} is {_percent(own, odd[0])} of the target's sentences and {_percent(other, odd[0])} here{more}",
                )  # fmt: skip


def _shares(prompts: Sequence[Prompt]) -> dict[str, Fraction]:
    frames = [frame_of(p) for p in prompts if not p.answers]
    return {frame: Fraction(n, len(frames)) for frame, n in Counter(frames).items()}


def _percent(shares: Mapping[str, Fraction], frame: str) -> str:
    return f"{float(shares.get(frame, Fraction())):.0%}"


def _unknown_words(concept: Concept, tokenizers: Mapping[str, Any]) -> Iterator[Fault]:
    words: dict[str, str] = {}
    for _, where, prompts in _lists(concept):
        for p in prompts:
            for word in p.text.split():
                words.setdefault(word.strip(".,:;?!"), where)
    for name, tokenizer in tokenizers.items():
        unknown = getattr(tokenizer, "unk_token_id", None)
        for word, where in words.items():
            if unknown is not None and word and unknown in tokenizer(word, add_special_tokens=False).input_ids:
                yield Fault(CHECKS[5], where, f"{word!r} is no word of {name}")


def _cut(concept: Concept, reader: PromptReader) -> Iterator[Fault]:
    for _, where, prompts in _lists(concept):
        for p in prompts:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                try:
                    reader.tokenise([p])
                except ValueError as error:
                    yield Fault(CHECKS[6], where, str(error))
            for one in said:
                if one.category is UserWarning:
                    yield Fault(CHECKS[6], where, str(one.message))


def _unknown_labels(concept: Concept, labels: Sequence[str]) -> Iterator[Fault]:
    lacking: dict[str, str] = {}
    for _, where, prompts in _lists(concept, JUDGED_KINDS):
        for p in prompts:
            if p.label is not None and p.label not in labels:
                lacking.setdefault(p.label, where)
    for label, where in lacking.items():
        yield Fault(CHECKS[7], where, f"{label!r} is no label of the recogniser")
