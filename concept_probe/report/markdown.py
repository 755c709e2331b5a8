"""Text inside Markdown: what a stranger wrote stays text, whatever it looks like."""

from __future__ import annotations

import re

from concept_probe.types.plain_text import shown_plainly

_ACTS = re.compile(
    r"""\\(?=[!-/:-@\[-`{-~]|$) # a backslash that would eat what follows, here or behind the text
      | ` | \$
      | &(?=\#?\w+;)            # a character by its name or number
      | <(?=[A-Za-z/!?])        # an element, an autolink
      | \](?=[(\[:])            # the middle of a link, an image, a definition
      | \*(?=\S) | (?<=\S)\*
      | (?<![^\W_])_ | _(?![^\W_])
      | ~(?=~)
      | :(?=//) | (?<=\bwww)\. | @(?=\w)   # links that need no brackets
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BEGINS = re.compile(r"^(?:>|#{1,6}(?=\s|$)|[*+-](?=\s|$)|[=-]{2,}(?=\s*$)|\d{1,9}(?=[.)](?:\s|$)))")
"""What makes something of the line that it begins."""


def escaped(text: object) -> str:
    r"""`text` on one line, with everything that Markdown or HTML would act on made plain.

    >>> escaped("[a](http://b) <b>c</b>\n# d")
    '[a\\](http\\://b) \\<b>c\\</b> # d'
    """
    flat = " ".join(shown_plainly(text).split())
    plain = _ACTS.sub(lambda found: "\\" + found.group(), flat)
    begun = _BEGINS.match(plain)
    if begun is None:
        return plain
    at = begun.end() if plain[0].isdigit() else 0
    return f"{plain[:at]}\\{plain[at:]}"


def cell(text: object) -> str:
    """`escaped`, for a cell of a table."""
    return escaped(text).replace("|", "\\|")


def code(text: object) -> str:
    """`text` as code on one line."""
    flat = " ".join(shown_plainly(text).split()).replace("`", "'")
    return f"`{flat}`"
