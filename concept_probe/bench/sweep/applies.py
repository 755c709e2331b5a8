"""Whether a cell can be measured at all, told before anything is: what does not apply has failed at nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from concept_probe.attacks import ATTACKS
from concept_probe.bench.sweep.grid import CONTROLS, Cell, Grid
from concept_probe.types import SparseCoder

if TYPE_CHECKING:
    from concept_probe.families import Subject


def why_not(cell: Cell, grid: Grid, subject: Subject, saes: Sequence[SparseCoder]) -> str:
    """Why a cell does not apply, in a sentence; empty where it does.

    An eraser that is not on what the subject answers with, one that needs autoencoders, anchor prompts, answers or
    example pictures that nobody gave, an attack that needs examples of a concept without.
    """
    about = cell.concept
    if cell.attack is not None:
        attack = ATTACKS[cell.attack.attack]
        if attack.lacks_examples(subject, about):
            return f"attack {cell.attack.name!r} needs examples of {about.name!r}: give the concept some"
    if cell.method in CONTROLS:
        return ""
    method = grid.method(cell.method)
    for eraser in (method.eraser, *method.others):
        if not eraser.suits(subject):
            return (
                f"{eraser.name} erases from models that answer with {eraser.on}, and this one's are {subject.answers}"
            )
        if (reason := eraser.refuses(subject)) is not None:
            return reason
        needs = eraser.needs
        if needs.anchor and getattr(eraser, "guide", None) is None and not about.anchor.fit:
            return f"{eraser.name} needs anchor prompts of {about.name!r} in its fit split: give the concept some"
        if needs.examples and (about.examples is None or not len(about.examples)):
            return f"{eraser.name} needs pictures of {about.name!r}: give the concept examples"
    if method.works_with_features and not saes:
        return f"{method.name} works with features, and {subject.name!r} has no autoencoder: give some (--sae)"
    return ""
