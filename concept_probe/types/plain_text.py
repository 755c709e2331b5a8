"""Text of strangers, as something that can be shown: nothing in it acts on a terminal or turns a line around."""

from __future__ import annotations

import unicodedata

TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
"""Characters that change the direction of what follows, or end a line unseen."""


def shown_plainly(text: object, keep: str = "\n\t") -> str:
    r"""`text` with control characters written out, those in `keep` aside.

    >>> shown_plainly("\x1b[2Jcamel")
    '\\x1b[2Jcamel'
    """
    return "".join(c if c in keep or not _acts(c) else _written(c) for c in str(text))


def _acts(character: str) -> bool:
    return character in TURNS or unicodedata.category(character) in ("Cc", "Cs")


def _written(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
