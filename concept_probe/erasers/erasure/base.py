"""The weights that an erasure was made for, and whether they are those at hand."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from concept_probe.learn.belongs import HALF

if TYPE_CHECKING:
    from concept_probe.erasers.erasure.intervention import Intervention
    from concept_probe.families import Subject

MOVED = "moved_from"
"""Key of `made_by` for the hash of the weights that an erasure was made for before it was meant for others."""


class WrongBase(ValueError):
    """The weights at hand are not those that the erasure was made for. Nothing was applied."""


def check_base(guard: Intervention, kind: str, subject: Subject) -> None:
    """As `refuse_other_base`, of a guard."""
    fitted = f"{kind} {guard.name!r} was fitted on {guard.made_by.get('subject', 'a model')!r}"
    mend = f"Make it again on this model, or say that you mean it with {kind}.meant_for(subject).on(subject)"
    refuse_other_base(fitted, guard.base_hash, subject, mend)


def refuse_other_base(made: str, base_hash: str, subject: Subject, mend: str) -> None:
    """`WrongBase` for weights other than those of `base_hash`, with the edits that are on or without them; nothing where it
    is empty.

    `made` says what was made of those. In half precision the bytes of one model differ from those in full, so there is a
    warning instead.
    """
    if not base_hash or subject.weight_hash() == base_hash:
        return
    with subject.state.unedited():
        if subject.weight_hash() == base_hash:
            return
    found = subject.weight_hash()
    said = f"{made} with weights {base_hash[:12]}, but subject {subject.name!r} has weights {found[:12]}"
    if subject.dtype in HALF:
        warnings.warn(f"{said}: it may be the same model in {subject.dtype}, or another", stacklevel=6)
        return
    raise WrongBase(f"{said}; nothing was applied. {mend}")


def moved(made_by: Mapping[str, Any], base_hash: str) -> dict[str, Any]:
    """`made_by` of an erasure that is meant for other weights than those of `base_hash`, which it was made for."""
    return {**made_by, **({MOVED: made_by.get(MOVED, base_hash)} if base_hash else {})}
