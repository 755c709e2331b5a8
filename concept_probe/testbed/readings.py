"""Texts that an autoencoder over a language model learns from: WordNet's glosses, the model's own, and packaged facts.

Nothing of the facts' select and test splits is among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from concept_probe.testbed import facts
from concept_probe.types import Prompt, Query, Sampling

WORDNET = Path("/usr/share/wordnet")
"""Where Debian's package wordnet-base puts WordNet 3.0."""
_PARTS = ("noun", "verb", "adj", "adv")
_HELD = 8
"""Every so many-th gloss is kept to judge on."""


class TextGenerator(Protocol):
    """What is asked of a language model here, see `families.CausalLMSubject`."""

    def generate(self, queries: Sequence[Query], sampling: Sampling = ...) -> Any: ...


def glosses(count: int, folder: Path = WORDNET) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """`count` entries of WordNet evenly spaced over all of them, as "word: gloss": to learn from, and to judge on.

    Raises FileNotFoundError where WordNet isn't; ValueError for more than it has.
    """
    missing = [str(folder / f"data.{part}") for part in _PARTS if not (folder / f"data.{part}").is_file()]
    if missing:
        raise FileNotFoundError(
            f"WordNet is not in {folder} ({missing[0]} is missing); install Debian's package wordnet-base, or name the "
            "folder of its data files"
        )
    every = [text for part in _PARTS for text in _entries(folder / f"data.{part}")]
    if not 0 < count <= len(every):
        raise ValueError(f"{count} glosses were asked for; WordNet in {folder} has {len(every)}")
    chosen = [Prompt(every[i * len(every) // count]) for i in range(count)]
    held = {p.text for p in chosen[::_HELD]}
    return tuple(p for p in chosen if p.text not in held), tuple(dict.fromkeys(chosen[::_HELD]))


def _entries(file: Path) -> Iterator[str]:
    """Lines of a data file: numbers and words, then the gloss behind a bar. The licence stands indented before."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line[:1].isdigit():
            head, _, gloss = line.partition(" | ")
            word = head.split()[4].partition("(")[0].replace("_", " ")  # adjectives may have a marker: "ill(p)"
            yield f"{word}: {gloss.strip()}"


def texts_written_by(subject: TextGenerator, about: Sequence[Prompt], tokens: int = 64) -> tuple[Prompt, ...]:
    """What the model itself writes after "word is", at temperature 1, for the word before each gloss; seed i for the i-th.

    >>> written(subject, glosses(12)[0])
    """
    starts = [f"{p.text.partition(':')[0].capitalize()} is" for p in about]
    queries = [Query(Prompt(start), i) for i, start in enumerate(starts)]
    texts = subject.generate(queries, Sampling(tokens=tokens, temperature=1.0, batch=64))
    return tuple(Prompt(start + text) for start, text in zip(starts, texts, strict=True))


def fact_readings() -> tuple[Prompt, ...]:
    """The packaged facts' fit prompts in every wording; those that a text goes on from with their answer.

    Of the concepts that have no parts alone: mathematics came later, and the shipped autoencoder never read it.
    """
    asked = (facts.prompt(t, f, wording) for t in facts.kept() for f in t.of("fit") for wording in facts.WORDINGS)
    whole = (p if p.form == "chat" else Prompt(f"{p.text} {p.answers[0]}.") for p in asked)
    return tuple(dict.fromkeys(whole))


def by_length(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """Texts of like length side by side: a batch of them is hardly filled up."""
    return tuple(sorted(prompts, key=lambda p: (p.form, len(p.text), p.text)))
