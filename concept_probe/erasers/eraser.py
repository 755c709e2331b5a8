"""What every eraser is: options that make an erasure, and a declaration of what that is and what it takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, final

from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.intervention import Between, Change, Intervention
from concept_probe.erasers.erasure.provenance import made_by
from concept_probe.registry import check_choices
from concept_probe.types import Concept, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.erasers.erasure.deltas import Delta
    from concept_probe.families import Subject

Found = Literal["nothing", "features", "patch_features", "vectors", "columns"]
"""What an eraser works on besides prompts: features of autoencoders over text or over a language model's stream,
features over the denoiser's patches, vectors in activations or weights, columns of matrices."""
Aim = Literal["prompts", "text", "to_empty", "to_anchor", "patches", "latents", "examples"]
"""By what an eraser can be seen to aim at its concept, which is how it is tested:

- `prompts`: what the concept's own prompts say to cross-attention (or a language model's answers) moves most;
- `text`: given a text instead, it leads away from that text on every prompt alike;
- `to_empty`, `to_anchor`: the denoiser's predictions for the concept are led to those for no prompt, or the anchor;
- `patches`: what cross-attention writes moves most;
- `latents`: the picture so far decides, between two steps;
- `examples`: pictures of the concept are denoised worse.
"""


@dataclass(frozen=True)
class Needs:
    """What has to be there before an eraser can start."""

    found: Found = "nothing"
    """What `found` must hold."""
    optional: bool = False
    """Whether it can find that by itself, so that `found` may be empty."""
    answers: bool = False
    """Whether the concept's fit prompts must have answers in words."""
    anchor: bool = False
    """Whether the concept must have anchor prompts."""
    examples: bool = False
    """Whether the concept must have example pictures."""


NOTHING = Needs()


class Eraser(ABC):
    """A frozen dataclass of options that is called with what it works on. A subclass writes `make` and declares:

    >>> @dataclass(frozen=True)
    ... class Mine(Eraser):
    ...     name, makes, on = "mine", "edit", "pictures"
    ...     strength: float = 1.0
    ...
    ...     def make(self, subject, concept, found):
    ...         return self.edit(subject, concept, deltas, residual=0.01)

    Calling it checks that subject, concept and `found` are what it declares to need, and stamps what came out with
    method, options, subject, fingerprints of the prompts that it may have seen, and hashes of what it worked on.
    """

    name: ClassVar[str]
    """Its key in ERASERS."""
    makes: ClassVar[Literal["edit", "guard"]]
    """A change of weights, or an intervention while the model runs."""
    on: ClassVar[Literal["pictures", "texts", "both"]] = "pictures"
    """Subjects that it can erase from: those that answer with pictures, with texts, or either."""
    needs: ClassVar[Needs] = NOTHING
    aims: ClassVar[Aim] = "prompts"
    origin: ClassVar[Literal["ours", "published", "control"]] = "published"
    """Whose method it is: this project's own, a published one or a part of it, or a control."""

    def __post_init__(self) -> None:
        check_choices(self, self.name)

    @classmethod
    def tiny(cls) -> Self:
        """Options under which it shows on a tiny random model within seconds: what the laws are tried on."""
        return cls()

    @final
    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit | Intervention:
        """Make the erasure; nothing is applied until `with erasure.on(subject)`.

        Raises TypeError for a subject that answers in another way, ValueError where concept or `found` lack what the
        method declares to need.
        """
        found = tuple(found)
        self._refuse(subject, concept, found)
        made = self.make(subject, concept, found)
        return replace(made, made_by=made_by(self, subject, concept, found, **made.made_by))

    @abstractmethod
    def make(self, subject: Subject, concept: Concept, found: tuple[Subspace, ...]) -> Edit | Intervention:
        """The erasure, with what was measured in the making as its `made_by`; the caller stamps the rest."""

    @final
    def edit(self, subject: Subject, concept: Concept, deltas: Mapping[str, Delta], **measured: Any) -> Edit:
        """An edit by this method of the weights as they are."""
        return Edit(self.name, concept.name, deltas, subject.weight_hash(), measured)

    @final
    def guard(
        self, concept: Concept, actions: Mapping[Site, Change], between: Between | None = None, **measured: Any
    ) -> Intervention:
        """An intervention by this method, at its option `strength` where it has one."""
        return Intervention(self.name, concept.name, actions, getattr(self, "strength", 1.0), measured, between)

    def _refuse(self, subject: Subject, concept: Concept, found: Sequence[Subspace]) -> None:
        if not suits(self, subject):
            raise TypeError(
                f"{self.name} erases from models that answer with {self.on}, and {subject.name!r} is of family "
                f"{subject.family!r}, which answers with {subject.answers}"
            )
        needs = self.needs
        if needs.found != "nothing" and not needs.optional and not found:
            raise ValueError(
                f"{self.name} works on {needs.found.replace('_', ' ')} of {concept.name!r}, and `found` holds none; find "
                f"them first and give them as `found`"
            )
        if needs.answers and not any(
            p.answers for kind in ("target", "paraphrases") for p in concept.prompts(kind, "fit")
        ):
            raise ValueError(
                f"{self.name}: no fit prompt of {concept.name!r} has `answers`, so there is nothing to unlearn; give its "
                "prompts answers"
            )
        if needs.anchor and not concept.anchor.fit:
            raise ValueError(f"{self.name}: {concept.name!r} has no anchor prompts (fit split); give it some")
        if needs.examples and (concept.examples is None or not len(concept.examples)):
            raise ValueError(
                f"{self.name} needs pictures of {concept.name!r}: give the concept `examples` (n, 3, h, w) in 0..1"
            )


def suits(eraser: Eraser | type[Eraser], subject: Subject) -> bool:
    """Whether the subject answers with what the eraser erases from."""
    return eraser.on in ("both", subject.answers)
