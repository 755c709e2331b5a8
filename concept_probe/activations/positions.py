"""Positions of a text that say nothing of it."""

from __future__ import annotations

from collections.abc import Sequence


def leaves_first(reads_forward: bool, kinds: Sequence[str] | None) -> bool:
    """Whether nothing is learned from the first position of a text: where texts are read forward, unless kind `bos` was
    asked for.

    It knows nothing but its own token, and attention comes to rest on it: its rows are alike in all texts, and many
    times as long as others, so that they would decide every mean and every error.
    """
    return reads_forward and "bos" not in (kinds or ())
