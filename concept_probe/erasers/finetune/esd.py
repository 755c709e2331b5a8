"""ESD: fine-tune the denoiser to say the opposite of what the concept's prompt made it say (arXiv 2303.07345)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from concept_probe.erasers.closed_form.states import moved_prompts
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.provenance import made_by
from concept_probe.erasers.finetune.distillation import Lesson, Training, keep, teach
from concept_probe.erasers.finetune.loop import Loss, ends
from concept_probe.erasers.finetune.negative_guidance import Base, away
from concept_probe.erasers.finetune.trainable import Student, Whole
from concept_probe.types import OTHER_KINDS, Concept, Kind, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

Part = Literal["x", "u", "strict", "all"]
PARTS = ("x", "u", "strict", "all")


def parameters_of(subject: Subject, part: Part, method: str) -> list[str]:
    """Addresses of the denoiser's parameters: its cross-attention (`x`), the rest (`u`), keys and values (`strict`)."""
    if part not in PARTS:
        raise ValueError(f"{method}: part is {part!r}; it is one of {', '.join(PARTS)}")
    keys, values = subject.sites("cross_key_weight"), subject.sites("cross_value_weight")
    component = keys[0].component
    if part == "strict":
        return [f"{component}/{site.path}:weight" for site in (*keys, *values)]
    inside = tuple(site.path.rpartition(".")[0] + "." for site in keys)
    out = []
    for name, _ in subject.components[component].named_parameters():
        if part == "all" or name.startswith(inside) == (part == "x"):
            out.append(f"{component}/{name.rpartition('.')[0]}:{name.rpartition('.')[2]}")
    return out


@dataclass(frozen=True)
class Esd:
    """Distil guidance away from the concept into the weights.

    >>> edit = Esd(part="strict", eta=2.0)(subject, concept)
    """

    name: ClassVar[str] = "esd"
    part: Part = "x"
    """What is trained: `x` all of cross-attention, `u` all of the denoiser but that, `strict` keys and values, `all`."""
    eta: float = 1.0
    """η: how far past its base the concept's prompt is led."""
    base: Base = "empty"
    """The `empty` prompt, as in the paper, or the concept's `anchor`, for what the model also draws unasked."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) of the retain lesson, which the paper does without."""
    training: Training = Training(refresh=40)
    """How it is trained; latents are those of the student's own walks, made anew now and then."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit:
        """`found` is not used. ValueError where the concept has no prompts in `sources`."""
        moved = tuple(moved_prompts(concept, self.sources, self.name))
        student = Whole(subject, parameters_of(subject, self.part, self.name))
        others = [prompt for kind in self.preserve for prompt in concept.prompts(kind, "fit")]
        lessons = [away(subject, concept, moved, self.eta, self.base, self.name)]
        lessons += keep(subject, others, self.training.retain, self.name)
        return trained(self, subject, concept, student, lessons, self.training, self.strength)


def trained(
    eraser: Any,
    subject: Subject,
    concept: Concept,
    student: Student,
    lessons: Sequence[Lesson],
    training: Training,
    strength: float,
    also: Loss | None = None,
) -> Edit:
    """The edit that a student learns; nothing is trained at strength 0."""
    losses = teach(subject, student, lessons, training, eraser.name, also) if strength else []
    origin = made_by(eraser, subject, concept, loss=ends(losses), trained=len(student.deltas()))
    deltas = {where: delta.scaled(strength) for where, delta in student.deltas().items()} if strength else {}
    return Edit(eraser.name, concept.name, deltas, subject.weight_hash(), origin)
