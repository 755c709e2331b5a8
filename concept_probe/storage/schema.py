"""What a value of JSON has to be: descriptions that are called on a value and say what is wrong, and where."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from concept_probe.storage.errors import CorruptFile

Shape = Callable[[Any, str], str | None]
"""A value and what it is called to a sentence that says what is wrong with it; None where nothing is."""


def check_fields(path: str | Path, value: Any, shape: Shape, mend: str, what: str = "it") -> None:
    """CorruptFile, ending in `mend`, where the value that stands in `path` is not of that shape."""
    wrong = shape(value, "")
    if wrong is not None:
        raise CorruptFile(path, wrong.removeprefix(".") if wrong[:1] == "." else f"{what} {wrong.lstrip()}", mend)


def _not(where: str, wanted: str, found: Any) -> str:
    text = repr(found)
    return f"{where} should be {wanted}, not {text if len(text) <= 60 else text[:57] + '...'}"


@dataclass(frozen=True)
class Text:
    """A text, of one of some `words`, or as `pattern` says whole, or any."""

    words: tuple[str, ...] = ()
    pattern: str = ""
    wanted: str = "a text"

    def __call__(self, value: Any, where: str) -> str | None:
        if not isinstance(value, str) or (self.pattern and not re.fullmatch(self.pattern, value, re.DOTALL)):
            return _not(where, self.wanted, value)
        if self.words and value not in self.words:
            return _not(where, f"one of {', '.join(self.words)}", value)
        return None


@dataclass(frozen=True)
class Parsed:
    """A text that `read` reads, without a ValueError."""

    read: Callable[[str], object]
    wanted: str

    def __call__(self, value: Any, where: str) -> str | None:
        try:
            fits = isinstance(value, str) and self.read(value) is not None
        except ValueError:
            fits = False
        return None if fits else _not(where, self.wanted, value)


@dataclass(frozen=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int | None = 0
    most: int = 2**63 - 1

    def __call__(self, value: Any, where: str) -> str | None:
        least = -self.most if self.least is None else self.least
        if type(value) is not int or not least <= value <= self.most:
            return _not(where, "a whole number" if self.least is None else f"a whole number from {least} on", value)
        return None


@dataclass(frozen=True)
class Number:
    """A number from `least` to `most`; finite, unless `any` number will do."""

    least: float = -math.inf
    most: float = math.inf
    any: bool = False

    def __call__(self, value: Any, where: str) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 2**1023:
            fits = isinstance(value, float) and self.any
        else:
            fits = (math.isfinite(value) and self.least <= value <= self.most) or (
                self.any and not math.isfinite(value)
            )
        bounds = "" if self.least == -math.inf else f" from {self.least:g} to {self.most:g}"
        return None if fits else _not(where, f"a number{bounds}", value)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def __call__(self, value: Any, where: str) -> str | None:
        return None if isinstance(value, bool) else _not(where, "true or false", value)


@dataclass(frozen=True)
class Free:
    """Any value that JSON can hold."""

    def __call__(self, value: Any, where: str) -> str | None:
        return None


@dataclass(frozen=True)
class Maybe:
    """A value of that shape, or null."""

    of: Shape

    def __call__(self, value: Any, where: str) -> str | None:
        return None if value is None else self.of(value, where)


@dataclass(frozen=True)
class Items:
    """A list of that shape each, of `least` items at least."""

    of: Shape
    least: int = 0

    def __call__(self, value: Any, where: str) -> str | None:
        if not isinstance(value, list) or len(value) < self.least:
            return _not(where, "a list" if not self.least else f"a list of {self.least} or more", value)
        return next((w for i, v in enumerate(value) if (w := self.of(v, f"{where}[{i}]")) is not None), None)


@dataclass(frozen=True)
class Tuple:
    """A list of just these shapes, one after the other; the last ones may be left out as far as `least`."""

    of: tuple[Shape, ...]
    least: int | None = None

    def __call__(self, value: Any, where: str) -> str | None:
        least = len(self.of) if self.least is None else self.least
        if not isinstance(value, list) or not least <= len(value) <= len(self.of):
            return _not(where, f"a list of {least} to {len(self.of)} items", value)
        shapes = zip(self.of, value, strict=False)
        return next((w for i, (s, v) in enumerate(shapes) if (w := s(v, f"{where}[{i}]")) is not None), None)


@dataclass(frozen=True)
class Table:
    """An object of any keys, with values of that shape each."""

    of: Shape
    keys: Shape = field(default_factory=Text)

    def __call__(self, value: Any, where: str) -> str | None:
        if not isinstance(value, dict):
            return _not(where, "an object", value)
        for name, one in value.items():
            wrong = self.keys(name, f"{where}, a key,") or self.of(one, f"{where}[{name!r}]")
            if wrong is not None:
                return wrong
        return None


@dataclass(frozen=True)
class Fields:
    """An object with these `needed` fields, some others that may be there, and, unless it is `open`, no more."""

    needed: Mapping[str, Shape]
    other: Mapping[str, Shape] = field(default_factory=dict)
    open: bool = False

    def __call__(self, value: Any, where: str) -> str | None:
        if not isinstance(value, dict):
            return _not(where, "an object", value)
        lacking = [name for name in self.needed if name not in value]
        if lacking:
            return f"{where} lacks {', '.join(lacking)}"
        known = {**self.needed, **self.other}
        unknown = sorted(set(value) - set(known))
        if unknown and not self.open:
            return f"{where} has {', '.join(unknown)[:80]}, which it can't have"
        return next(
            (w for n, s in known.items() if n in value and (w := s(value[n], f"{where}.{n}")) is not None), None
        )


HASH = Text(pattern="[0-9a-f]{64}", wanted="a sha256 of 64 digits")
