"""The nouns of WordNet, from a folder in the format of its own releases (`wndb(5WN)`)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from concept_probe.concepts.kits.lexicon import Meaning
from concept_probe.storage import CorruptFile, MissingFile

_NAMES = (
    "tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event", "feeling", "food",
    "group", "location", "motive", "object", "person", "phenomenon", "plant", "possession", "process", "quantity",
    "relation", "shape", "state", "substance", "time",
)  # fmt: skip
_DOMAINS = dict(enumerate(_NAMES, 3))
"""Numbers of the lexicographers' files of nouns (`lexnames(5WN)`)."""
_ABOVE, _BELOW, _TERMS = ("@", "@i"), ("~", "~i"), ("-c",)
_MEND = "install the database again"


class WordNet:
    """WordNet's nouns. Files are read when they are first needed, and kept."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds `index.noun`, `data.noun` and `index.sense`. MissingFile where one isn't there."""
        self.name = folder.name
        self.folder = folder
        for name in ("index.noun", "data.noun", "index.sense"):
            if not (folder / name).is_file():
                raise MissingFile(f"{folder / name} not found; {_MEND}")

    def _lines(self, name: str) -> list[str]:
        """A file's entries, without the licence that stands before them."""
        return [x for x in (self.folder / name).read_text(encoding="utf-8").splitlines() if x[:1].strip()]

    @cached_property
    def _index(self) -> dict[str, list[str]]:
        """Word in lower case to the offsets of its senses."""
        out = {}
        for line in self._lines("index.noun"):
            word, _, count, *rest = line.split()
            out[word.replace("_", " ")] = rest[len(rest) - int(count) :]
        return out

    @cached_property
    def _entries(self) -> dict[str, str]:
        """Offset, as it is written, to entry. A file whose line ends were rewritten has other byte positions."""
        return {line[:8]: line for line in self._lines("data.noun")}

    @cached_property
    def _usage(self) -> dict[str, int]:
        """Offset to how often it was met; of nouns that were."""
        out: dict[str, int] = {}
        for line in self._lines("index.sense"):
            key, offset, _, count = line.split()
            if "%1:" in key and count != "0":
                out[offset] = out.get(offset, 0) + int(count)
        return out

    def _meaning(self, offset: str) -> Meaning:
        head, fields = self._fields(offset)
        words = tuple(fields[4 + 2 * i].replace("_", " ") for i in range(int(fields[3], 16)))
        # A definition may hold semicolons; examples are what stands in quotes.
        gloss = head.split('; "')[0].split('"')[0].strip(" ;")
        return Meaning(offset, words, gloss, _DOMAINS[int(fields[1])])

    def _fields(self, offset: str) -> tuple[str, list[str]]:
        """An entry's gloss and the fields before it."""
        if offset not in self._entries:
            raise CorruptFile(self.folder / "data.noun", f"no entry {offset}, which another one names", _MEND)
        fields, _, gloss = self._entries[offset].partition("|")
        return gloss.strip(), fields.split()

    def _related(self, meaning: Meaning, pointers: tuple[str, ...]) -> tuple[Meaning, ...]:
        _, fields = self._fields(meaning.key)
        start = 4 + 2 * int(fields[3], 16)
        rows = [fields[start + 1 + 4 * i : start + 5 + 4 * i] for i in range(int(fields[start]))]
        return tuple(self._meaning(offset) for symbol, offset, part, _ in rows if symbol in pointers and part == "n")

    def senses(self, word: str) -> tuple[Meaning, ...]:
        return tuple(map(self._meaning, self._index.get(" ".join(word.lower().replace("_", " ").split()), ())))

    def above(self, meaning: Meaning) -> tuple[Meaning, ...]:
        return self._related(meaning, _ABOVE)

    def below(self, meaning: Meaning) -> tuple[Meaning, ...]:
        return self._related(meaning, _BELOW)

    def terms(self, meaning: Meaning) -> tuple[Meaning, ...]:
        return self._related(meaning, _TERMS)

    def usage(self, meaning: Meaning) -> int:
        return self._usage.get(meaning.key, 0)

    def words(self) -> Iterable[str]:
        return self._index
