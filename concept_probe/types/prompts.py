"""What a subject is asked, and what a concept is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from torch import Tensor

from concept_probe.arguments import Count, Nonnegative, SeedNumber, Share, check_arguments

T = TypeVar("T")
Split = Literal["fit", "select", "test"]
Kind = Literal["target", "paraphrases", "implicit", "neighbours", "anchor", "unrelated"]
Form = Literal["plain", "chat"]
FORMS: tuple[Form, ...] = ("plain", "chat")
SPLITS: tuple[Split, ...] = ("fit", "select", "test")
KINDS: tuple[Kind, ...] = ("target", "paraphrases", "implicit", "neighbours", "anchor", "unrelated")
FORGET_KINDS: tuple[Kind, ...] = ("target", "paraphrases", "implicit")
"""The lists of prompts that ask for the concept."""
OTHER_KINDS: tuple[Kind, ...] = ("neighbours", "anchor", "unrelated")
"""The lists of prompts that do not: what a concept is contrasted with, and what a training keeps as it was."""
RETAIN_KINDS: tuple[Kind, ...] = ("neighbours", "unrelated")
"""The lists on which an erased subject has to do as well as before; an anchor's sentences show nothing to recognise."""
JUDGED_KINDS: tuple[Kind, ...] = FORGET_KINDS + RETAIN_KINDS
"""What an erasure is judged on."""


@dataclass(frozen=True)
class Prompt:
    """A text, the part of it that names what it shows, and the label a recogniser should give."""

    text: str
    subject: str | None = None
    """The words of `text` that name the subject; None where nothing is named."""
    label: str | None = None
    """What a right answer shows; None where no label is right."""
    form: Form = "plain"
    """How a language model gets the text: as it stands, or as the user's turn under its chat template. Models that
    make pictures have one form, `plain`."""
    answers: tuple[str, ...] = ()
    """What a right answer in words says, the usual wording first; empty where an answer is no text."""
    distractors: tuple[str, ...] = ()
    """Wrong answers of the same kind and length, which a right one is weighed against."""
    fact: str | None = None
    """What it asks for: prompts with the same one are wordings of one fact, which counts once, and stays in one split
    unless the splits are of wordings. None: a fact of its own."""

    def __post_init__(self) -> None:
        check_arguments(self, "prompt")
        if not self.text.isascii() and any("\ud800" <= c <= "\udfff" for c in self.text):
            raise ValueError(f"prompt: text is {self.text!r:.80}; half a character stands in it, which no model reads")


@dataclass(frozen=True)
class Query:
    """One thing asked of a subject: a prompt, and the seed of what is drawn to answer it."""

    prompt: Prompt
    seed: SeedNumber = 0

    def __post_init__(self) -> None:
        check_arguments(self, "query")


@dataclass(frozen=True)
class Splits:
    """Prompts of one kind, kept apart: what is used to fit, to select, and to test."""

    fit: tuple[Prompt, ...] = ()
    select: tuple[Prompt, ...] = ()
    test: tuple[Prompt, ...] = ()

    def __post_init__(self) -> None:
        check_arguments(self, "splits")

    def __iter__(self) -> Iterator[Prompt]:
        yield from (*self.fit, *self.select, *self.test)


@dataclass(frozen=True)
class Concept:
    """A name and the prompts that do, or must not, have to do with it."""

    name: str
    target: Splits
    paraphrases: Splits = Splits()
    implicit: Splits = Splits()
    neighbours: Splits = Splits()
    anchor: Splits = Splits()
    unrelated: Splits = Splits()
    examples: Tensor | None = field(default=None, compare=False, repr=False)
    """Pictures of the concept, float (n, 3, h, w) in 0..1; attacks that relearn need them."""
    parts: tuple[Concept, ...] = ()
    """The concepts that it was put together from, to be erased at once; none where it is one."""

    def __post_init__(self) -> None:
        check_arguments(self, "concept")
        _check_examples(self.name, self.examples)

    @property
    def label(self) -> str:
        """What a recogniser is to see where the concept is shown: the usual label of its target prompts, else its name.

        Raises ValueError for several concepts in one: each is looked for by itself.
        """
        if self.parts:
            raise ValueError(
                f"{self.name!r} is {len(self.parts)} concepts, and what shows it was asked for; ask for each of its `parts`"
            )
        labels = [p.label for p in self.target if p.label is not None]
        return max(dict.fromkeys(labels), key=labels.count) if labels else self.name

    def prompts(self, kind: Kind, split: Split) -> tuple[Prompt, ...]:
        """The prompts of one kind and split."""
        return getattr(getattr(self, kind), split)


@dataclass(frozen=True)
class Sampling:
    """How answers are made: pictures from noise, or texts token by token."""

    steps: Count = 15
    """Denoising steps of a picture. Some schedulers ask the denoiser more often, see `DiffusionSubject.passes`."""
    guidance: float = 4.0
    """Weight of classifier-free guidance of a picture."""
    batch: Count = 16
    """Largest number of answers in one pass; changes no result."""
    tokens: Count = 32
    """Largest number of tokens of a text."""
    temperature: Nonnegative = 0.0
    """Of the distribution that a text's tokens are drawn from; 0 takes the likeliest token each time."""
    guidance_rescale: Share = 0.0
    """How much of a guided prediction is brought to the spread of that under the prompt alone, against overexposure
    (arXiv 2305.08891, section 3.4; 0.7 there). 0 leaves it as it is."""

    def __post_init__(self) -> None:
        check_arguments(self, "sampling")

    def options(self) -> dict[str, Any]:
        """Names to values, as stored measurements are named by them: of `guidance_rescale` where it is used."""
        return {name: value for name, value in asdict(self).items() if value or name != "guidance_rescale"}

    def __str__(self) -> str:
        return f"Sampling({', '.join(f'{name}={value!r}' for name, value in self.options().items())})"


def _check_examples(name: str, examples: Tensor | None) -> None:
    if examples is None:
        return
    wanted = "they are pictures, a float tensor (n, 3, h, w) in 0..1"
    if not isinstance(examples, Tensor):
        raise TypeError(f"concept {name!r}: examples are a {type(examples).__name__}; {wanted}")
    if examples.ndim != 4 or examples.shape[1] != 3 or not examples.is_floating_point():
        raise ValueError(f"concept {name!r}: examples are {tuple(examples.shape)} of {examples.dtype}; {wanted}")
    if examples.numel() and not bool(((examples >= 0) & (examples <= 1)).all()):
        raise ValueError(
            f"concept {name!r}: examples go from {examples.min().item():.3g} to {examples.max().item():.3g}; {wanted}"
        )


def texts(prompts: Sequence[Prompt | str]) -> list[str]:
    """The bare texts of prompts."""
    return [p if isinstance(p, str) else p.text for p in prompts]


def evenly(items: Sequence[T], count: int) -> tuple[T, ...]:
    """At most `count` of the items, evenly apart in their order, the first among them.

    >>> evenly(range(10), 3)
    (0, 3, 6)
    """
    n = len(items)
    return tuple(items) if n <= count else tuple(items[i * n // count] for i in range(count))


def evenly_with_ends(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly apart in their order, the first and the last among them.

    >>> evenly_with_ends(range(10), 3)
    [0, 4, 9]
    """
    n = len(items)
    return list(items) if n <= count else [items[round(i * (n - 1) / (count - 1))] for i in range(count)]


def fingerprint(text: str) -> str:
    """What two sentences share that differ only in case and spacing: 12 hexadecimal digits of a SHA-256."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode()).hexdigest()[:12]
