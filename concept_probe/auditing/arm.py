"""A model in one state: a subject, with an erasure on or without one."""

from __future__ import annotations

import contextlib
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from concept_probe.auditing.sides import Side, Sides
from concept_probe.content import digest_of
from concept_probe.families import DiffusionSubject
from concept_probe.families.identity import how_it_reads
from concept_probe.storage import text_sha256
from concept_probe.types import Erasure

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Arm:
    """One side of an audit: a subject, and what is on in everything that is measured of it."""

    name: Side
    subject: Subject
    erasure: Erasure | None
    hash: str
    """Of the weights with the erasure on."""
    reads: str = ""
    """Digest of what else makes its answers: configuration, tokenizers, schedule, size of pictures; see `how_it_reads`."""
    content: str = ""
    """Digest of the erasure itself: its tensors, and what its hooks hold, as they were when the arm was made."""

    def on(self) -> AbstractContextManager[Any]:
        return contextlib.nullcontext(self.subject) if self.erasure is None else self.erasure.on(self.subject)

    @property
    def state(self) -> str:
        """Hash of the weights, of what else makes answers, and of what the erasure is made of: equal states answer alike.

        An erasure is known by its content, whatever it is called and says of itself.
        """
        if self.erasure is None:
            return f"{self.hash} {self.reads}"
        made = json.dumps([self.erasure.describe(), self.erasure.made_by], default=str, sort_keys=True)
        return f"{self.hash} {self.reads} {self.content} {text_sha256(made)}"


def guarded(arms: Sides[Arm]) -> bool:
    """Whether the weights with the erasure on are those from before: what it does, it does beside them."""
    return arms.after.state != arms.before.state and arms.after.hash == arms.before.hash


def arm_of(name: Side, subject: Subject, erasure: Erasure | None = None) -> Arm:
    """The arm, with the hash of its weights as they are while the erasure is on."""
    reads = how_it_reads(subject)
    with contextlib.nullcontext() if erasure is None else erasure.on(subject):
        found = subject.weight_hash(whole=True)
    return Arm(name, subject, erasure, found, reads, "" if erasure is None else digest_of(erasure))


def arms_of(subject: Subject, erasure: Erasure | None, original: Subject | None, twin: Subject | None) -> Sides[Arm]:
    """Before is `original`, or the subject without the erasure; the control is the twin. ValueError as of `refuse_others`."""
    refuse_others(subject, original, twin)
    return Sides(
        arm_of("before", subject if original is None else original),
        arm_of("after", subject, erasure),
        None if twin is None else arm_of("control", twin),
    )


def refuse_others(subject: Subject, original: Subject | None, twin: Subject | None) -> None:
    """Raise ValueError for a model that the subject can't be compared with, since it answers otherwise."""
    for what, other in (("original", original), ("twin", twin)):
        if other is not None and other.answers != subject.answers:
            raise ValueError(
                f"the {what} {other.name!r} answers with {other.answers} and {subject.name!r} with {subject.answers}, so they can't "
                "be compared; give a model of the same kind"
            )
        if isinstance(other, DiffusionSubject) and isinstance(subject, DiffusionSubject):
            sizes = [f"{h} x {w}" for h, w in (other.picture_size, subject.picture_size)]
            if sizes[0] != sizes[1]:
                raise ValueError(
                    f"the {what} {other.name!r} draws pictures of {sizes[0]} pixels and {subject.name!r} of {sizes[1]}, so they "
                    "can't be compared; give both one picture_size"
                )
