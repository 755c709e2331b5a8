"""Which tokens of what a denoiser reads spell which occurrence of a word."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from concept_probe.families.text.tokens import Occurrence, TooLong, subject_spans
from concept_probe.types import SUBJECT, Prompt

if TYPE_CHECKING:
    from concept_probe.families import DiffusionSubject

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


@dataclass(frozen=True)
class WordPlace:
    """One occurrence of a word in a prompt."""

    word: str
    nth: int
    """The number of the occurrence, 0 the first."""
    tokens: tuple[int, ...]
    """Its places along t of the states that the denoiser reads."""


def words_of(text: str) -> list[str]:
    """The words of a text, each once, in their order.

    >>> words_of("a cat, and a cat's dog")
    ['a', 'cat', 'and', "cat's", 'dog']
    """
    out: dict[str, str] = {}
    for found in _WORD.findall(text):
        out.setdefault(found.casefold(), found)
    return list(out.values())


def said_in(prompt: Prompt, word: str) -> list[Occurrence]:
    """Each place where the prompt says `word`, which may be several words, whatever their case.

    ValueError, with the words that are there, where it does not say it as words of their own.
    """
    there = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt.text, re.IGNORECASE)
    spaceless = not word.isascii() and word in prompt.text  # scripts that put no space between words
    if not word.strip() or not (there or spaceless):
        said = ", ".join(map(repr, words_of(prompt.text))) or "none"
        raise ValueError(f"{word!r} is not a word of the prompt {prompt.text!r}; its words are: {said}")
    spans = subject_spans(replace(prompt, subject=word))
    return [Occurrence(prompt.text, word, nth=i) for i in range(len(spans))]


def unsaid(prompt: Prompt, word: str) -> Prompt:
    """The prompt without any occurrence of `word`; what stood around it stays.

    >>> unsaid(Prompt("a cat and a dog"), "cat").text
    'a and a dog'
    """
    text = prompt.text
    for start, stop in reversed(subject_spans(replace(prompt, subject=word))):
        text = text[:start] + text[stop:]
    return Prompt(" ".join(text.split()))


@torch.no_grad()
def word_places(
    subject: DiffusionSubject, prompts: Sequence[Prompt], words: Sequence[Sequence[str]], *, cut: bool = False
) -> list[tuple[WordPlace, ...]]:
    """Per prompt, every occurrence of its `words`; with `cut` but for those behind the last token that is read.

    ValueError for a word that its prompt does not say; TooLong for one behind the last token, without `cut`.
    """
    asked = [(i, one) for i, prompt in enumerate(prompts) for word in words[i] for one in said_in(prompt, word)]
    if cut:
        asked = [(i, one) for i, one in asked if _is_read(subject, one)]
    out: list[list[WordPlace]] = [[] for _ in prompts]
    if not asked:
        return [() for _ in prompts]
    listed = [one for _, one in asked]
    kinds = subject.tokenise(listed).kinds
    read = subject.encode(listed[:1]).kinds.cpu()
    if read.shape[1] != kinds.shape[1] or not torch.equal(read, kinds[:1].cpu()):
        kinds = subject.encode(listed).kinds  # what is read is not what was tokenised, but parts of it
    for (i, one), row in zip(asked, kinds.cpu(), strict=True):
        tokens = tuple((row == SUBJECT).nonzero()[:, 0].tolist())
        if not tokens:
            raise ValueError(
                f"{subject.name} reads no token of {one.subject!r} (occurrence {one.nth}) in {one.text!r}; name another word"
            )
        out[i].append(WordPlace(str(one.subject), one.nth, tokens))
    return [tuple(places) for places in out]


def _is_read(subject: DiffusionSubject, one: Occurrence) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the rest is cut off is said where the prompt is read
        try:
            subject.tokenise([one])
        except TooLong:
            return False
    return True
