"""Several edits of the same weights as one: concepts that were each erased alone are erased together."""

from __future__ import annotations

from collections.abc import Sequence

from concept_probe.erasers.erasure.base import WrongBase
from concept_probe.erasers.erasure.deltas import Delta, Sum
from concept_probe.erasers.erasure.edit import Edit


def combine(edits: Sequence[Edit]) -> Edit:
    """The edit whose change of each parameter is the sum of theirs, rounded to its dtype after each.

    >>> both = combine([erase("memit", subject, one), erase("memit", subject, another)])

    Each was made without the others, so where two act on what both concepts need, the sum can overshoot: make the
    second with the first on, and join them with `Edit.then`, where that matters. Raises ValueError for no edit,
    `WrongBase` where they were made for different weights.
    """
    if not edits:
        raise ValueError("combine: no edit was given")
    bases = list(dict.fromkeys(edit.base_hash for edit in edits))
    if len(bases) > 1:
        made = ", ".join(f"{edit.name!r} of {edit.concept!r} for {edit.base_hash}" for edit in edits)
        raise WrongBase(
            f"combine: the edits were made for different weights ({made}); make them all on the same subject, or join "
            "one that was made on top of another with `first.then(second, subject)`"
        )
    deltas: dict[str, Delta] = {}
    for edit in edits:
        for where, delta in edit.deltas.items():
            deltas[where] = Sum((deltas[where], delta)) if where in deltas else delta
    parts = {str(i): dict(edit.made_by) for i, edit in enumerate(edits)}
    names, concepts = (dict.fromkeys(getattr(edit, what) for edit in edits) for what in ("name", "concept"))
    return Edit("+".join(names), "+".join(concepts), deltas, bases[0], {"method": "combine", "parts": parts})
