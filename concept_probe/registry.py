"""Look a name up; a wrong name lists the right ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar


def nearest(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """The names of `known` that are spelled most like `name`."""
    return difflib.get_close_matches(name, list(known), n=limit, cutoff=0.3)


T = TypeVar("T")


class UnknownName(LookupError):
    """A name that no table has; the message holds the nearest ones and where the list is."""

    def __init__(self, what: str, name: str, known: Iterable[str], where: str = "") -> None:
        known = list(known)
        near = nearest(name, known)
        hint = f"; nearest: {', '.join(map(repr, near))}" if near else ""
        names = f"; known: {', '.join(known)}" if known and len(known) <= 12 else ""
        super().__init__(f"{what} {name!r} not found{hint}{names}" + (f" ({where})" if where else ""))


def look_up(table: Mapping[str, T], name: str, what: str, where: str = "") -> T:
    """`table[name]`, or an error that helps.

    >>> look_up({"uce": 1}, "uci", "eraser")
    Traceback (most recent call last):
    concept_probe.registry.UnknownName: eraser 'uci' not found; nearest: 'uce'; known: uce
    """
    try:
        return table[name]
    except KeyError:
        raise UnknownName(what, name, table, where) from None
