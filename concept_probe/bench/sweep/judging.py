"""Who judges a sweep's answers, named or found, and refused before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from concept_probe import detect
from concept_probe.attacks import label_of
from concept_probe.auditing.checks import judge_of
from concept_probe.content import digest_of
from concept_probe.types import Concept, Judge

if TYPE_CHECKING:
    from concept_probe.families import Subject

Recognisers = Callable[[Concept], tuple[Judge, Judge | None]]
"""A concept to who judges its answers, and who judges the other domain in them (styles, of an object), if anybody."""


def recognisers_of(subject: Subject, named: Judge | str | None = None) -> Recognisers:
    """The named recogniser for every concept; without one, what `detect.judge_for` finds for the subject.

    It raises LookupError where nobody judges a concept, ValueError for who can't see its label.
    """
    made: dict[str, tuple[Judge, Judge | None]] = {}

    def judges(concept: Concept) -> tuple[Judge, Judge | None]:
        key = digest_of(concept.name, label_of(concept), *(p.answers for p in concept.target))
        if key not in made:
            _, looks = judge_of(concept, named, subject)
            made[key] = looks, detect.other_domain(looks)
        return made[key]

    return judges
