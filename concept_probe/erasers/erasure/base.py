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
    """`WrongBase` for weights that a guard was not fitted on, with the edits that are on or without them.

    In half precision the bytes of one model differ from those in full, so there is a warning instead.
    """
    if not guard.base_hash or subject.weight_hash() == guard.base_hash:
        return
    with subject.state.unedited():
        if subject.weight_hash() == guard.base_hash:
            return
    found = subject.weight_hash()
    said = (
        f"{kind} {guard.name!r} was fitted on {guard.made_by.get('subject', 'a model')!r} with weights "
        f"{guard.base_hash[:12]}, but subject {subject.name!r} has weights {found[:12]}"
    )
    if subject.dtype in HALF:
        warnings.warn(f"{said}: it may be the same model in {subject.dtype}, or another", stacklevel=5)
        return
    raise WrongBase(
        f"{said}; nothing was applied. Make it again on this model, or say that you mean it with "
        f"{kind}.meant_for(subject).on(subject)"
    )


def moved(made_by: Mapping[str, Any], base_hash: str) -> dict[str, Any]:
    """`made_by` of an erasure that is meant for other weights than those of `base_hash`, which it was made for."""
    return {**made_by, **({MOVED: made_by.get(MOVED, base_hash)} if base_hash else {})}
