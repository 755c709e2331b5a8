"""How a concept is removed: an eraser takes a subject, a concept and what was found, and returns an erasure.

An erasure is an `Intervention` (acts while it is on) or an `Edit` (a change of weights); both have
`on(subject)`, `scaled(factor)` and `describe()`. One line in `ERASERS` adds a method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from concept_probe.erase.ablate_features import AblateFeatures
from concept_probe.erase.ablate_vectors import AblateVectors
from concept_probe.erase.blocklist import Blocklist
from concept_probe.erase.choose import Choice, Tried, choose
from concept_probe.erase.deltas import Columns, Delta, LowRank, Shift
from concept_probe.erase.edit import Edit, WrongBase
from concept_probe.erase.intervention import Intervention
from concept_probe.erase.projection import Difference, Leace
from concept_probe.erase.tuned import choose_features
from concept_probe.erase.uce import Uce
from concept_probe.registry import look_up
from concept_probe.types import Concept, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

Erasure = Intervention | Edit


class Eraser(Protocol):
    """A frozen dataclass of options that is called with what it works on."""

    name: ClassVar[str]

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Erasure: ...


ERASERS: dict[str, type[Eraser]] = {
    "ablate_features": AblateFeatures,
    "ablate_vectors": AblateVectors,
    "leace": Leace,
    "difference": Difference,
    "uce": Uce,
    "blocklist": Blocklist,
}


def erase(method: str | Eraser, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Erasure:
    """Make an erasure with a method's default options (by name) or with options of your own (an instance).

    Nothing is applied until `with erasure.on(subject)` or, for an edit, `bake`.

    >>> edit = erase("uce", subject, concept)
    >>> guard = erase(AblateFeatures(strength=2.0), subject, concept, found)
    """
    if isinstance(method, str):
        method = look_up(ERASERS, method, "eraser", "the list: concept_probe.erase.ERASERS")()
    return method(subject, concept, tuple(found))


__all__ = [
    "ERASERS", "AblateFeatures", "AblateVectors", "Blocklist", "Choice", "Columns", "Delta", "Difference", "Edit",
    "Eraser", "Erasure", "Intervention", "Leace", "LowRank", "Shift", "Tried", "Uce", "WrongBase", "choose",
    "choose_features", "erase",
]  # fmt: skip
