"""What a kit is made of, before there are sentences."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from concept_probe.concepts.kits.wording import Wording, content_words

_Item = TypeVar("_Item")
MOST_NEIGHBOURS = 12
FEWEST_NEIGHBOURS = 3


@dataclass(frozen=True)
class Entry:
    """A thing, other ways to say it, and what lies around it."""

    name: str
    own: Wording
    paraphrases: tuple[Wording, ...]
    """Other words for it."""
    implicit: tuple[Wording, ...]
    """Descriptions in which no word of its name stands."""
    neighbours: tuple[Wording, ...]
    unrelated: tuple[Wording, ...]
    anchor: Wording
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was chosen for the reader, in sentences: of which sense it is, what is told by few words."""


def in_hashed_order(items: Iterable[_Item], key: str) -> list[_Item]:
    """The items in an order that their own texts and `key` decide, whatever order they come in."""
    return sorted(items, key=lambda item: zlib.crc32(f"{key}/{item}".encode()))


def apart(names: Iterable[str], others: Sequence[str]) -> list[str]:
    """Those of `names`, none twice, that share no word with any of `others`.

    >>> apart(["toy poodle", "wolf"], ["poodle"])
    ['wolf']
    """
    hidden = set().union(*map(content_words, others)) if others else set()
    return [n for n in dict.fromkeys(names) if not content_words(n) & hidden]
