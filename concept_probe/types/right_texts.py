"""Whether a written text answers a prompt: by words alone, whoever wrote it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from concept_probe.types.prompts import Prompt


def words(text: str) -> tuple[str, ...]:
    """The words of a text without case and punctuation, NFKC-normalised.

    >>> words("It's Paris, the 'City of Light'.")
    ('it', 's', 'paris', 'the', 'city', 'of', 'light')
    """
    return tuple(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold()))


def place(text: str, phrases: Sequence[str]) -> int | None:
    """At which word the first of `phrases` begins in `text`, as whole words; None where none of them stands there."""
    said = words(text)
    found = [
        i
        for phrase in phrases
        if (wanted := words(phrase))
        for i in range(len(said) - len(wanted) + 1)
        if said[i : i + len(wanted)] == wanted
    ]
    return min(found, default=None)


def is_right(text: str, prompt: Prompt) -> bool:
    """Whether a text says one of the prompt's answers, and none of its distractors before it.

    A text that lists every choice is thus no better than its first. Raises ValueError for a prompt without answers.
    """
    if not prompt.answers:
        raise ValueError(f"{prompt.text!r} has no answers, so no text is a right one; give it some")
    right, wrong = place(text, prompt.answers), place(text, prompt.distractors)
    return right is not None and (wrong is None or right <= wrong)
