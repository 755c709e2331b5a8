"""What made an erasure: method, options, subject, and which prompts it may have been fitted or selected on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from concept_probe.concepts import fingerprint
from concept_probe.types import KINDS, Concept

if TYPE_CHECKING:
    from concept_probe.families import Subject

SEEN = "prompts_seen"
"""Key of `made_by` under which fingerprints of prompts stand."""


def made_by(eraser: Any, subject: Subject, concept: Concept, **measured: Any) -> dict[str, Any]:
    """The `made_by` of what `eraser` (a dataclass of options) makes from the concept's fit and select prompts."""
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(eraser).items()}
    seen = {fingerprint(p.text) for kind in KINDS for split in ("fit", "select") for p in concept.prompts(kind, split)}
    return {"method": eraser.name, "options": options, "subject": subject.name, SEEN: sorted(seen), **measured}


def shown(made_by: Mapping[str, Any]) -> dict[str, Any]:
    """`made_by` for people: how many prompts were seen, instead of their fingerprints."""
    return {
        key: len(value) if key == SEEN else shown(value) if isinstance(value, Mapping) else value
        for key, value in made_by.items()
    }
