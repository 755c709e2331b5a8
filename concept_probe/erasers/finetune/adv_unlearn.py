"""AdvUnlearn: ESD of the text encoder under an adversary that moves the prompt's embeddings (arXiv 2405.15234)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from concept_probe.erasers.closed_form.states import moved_prompts
from concept_probe.erasers.closed_form.value_offsets import edited_layers
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import parameters_below
from concept_probe.erasers.finetune.distillation import Training, keep
from concept_probe.erasers.finetune.esd import trained
from concept_probe.erasers.finetune.negative_guidance import Base, away
from concept_probe.erasers.finetune.trainable import Whole
from concept_probe.types import OTHER_KINDS, Concept, Kind, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


def layer_parameters(subject: Subject, layers: Sequence[int]) -> list[str]:
    """Addresses of all parameters of these layers of every text encoder."""
    sites = [site for one in edited_layers(subject, layers) for site in one.streams]
    return [where for site in sites for where in parameters_below(subject, site)]


@dataclass(frozen=True)
class AdvUnlearn:
    """Train the text encoder to read the concept's prompts, however their embeddings are moved, as its opposite.

    >>> edit = AdvUnlearn(training=Training(adversary=10))(subject, concept)
    """

    name: ClassVar[str] = "adv_unlearn"
    layers: tuple[int, ...] = ()
    """Layers of each text encoder that are trained; empty: all that what is read depends on, but the last."""
    eta: float = 1.0
    """η: how far past its base the concept's prompt is led; see `Esd`."""
    base: Base = "empty"
    """What that is: the `empty` prompt, or the concept's `anchor`; see `Esd`."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) of the retain lesson."""
    training: Training = Training(adversary=3, rate=0.005)
    """How it is trained; `adversary` and `reach` are the inner attack's."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit:
        """`found` is not used. ValueError where the concept has no prompts in `sources`."""
        moved = tuple(moved_prompts(concept, self.sources, self.name))
        student = Whole(subject, layer_parameters(subject, self.layers))
        lessons = [away(subject, concept, moved, self.eta, self.base, self.name)]
        others = [prompt for kind in self.preserve for prompt in concept.prompts(kind, "fit")]
        lessons += keep(subject, others, self.training.retain, self.name)
        return trained(self, subject, concept, student, lessons, self.training, self.strength)
