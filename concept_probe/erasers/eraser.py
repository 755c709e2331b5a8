"""What every eraser is: options that make an erasure, and a declaration of what that is and what it takes."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar, cast, final

from concept_probe.arguments import check_arguments
from concept_probe.concepts.united import united
from concept_probe.erasers.erasure.base import refuse_other_base
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.gap import wide_gaps
from concept_probe.erasers.erasure.intervention import Between, Change, Intervention
from concept_probe.erasers.erasure.provenance import provenance
from concept_probe.erasers.needs import MATERIAL, NOTHING, Needs
from concept_probe.erasers.published import Published
from concept_probe.families import Subject
from concept_probe.learn.belongs import check_belongs
from concept_probe.types import Concept, Sampling, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.erasers.erasure.deltas import Delta

Aim = Literal["prompts", "text", "to_empty", "to_anchor", "patches", "latents", "examples"]
"""By what an eraser can be seen to aim at its concept, which is how it is tested:

- `prompts`: what the concept's own prompts say to cross-attention (or a language model's answers) moves most;
- `text`: given a text instead, it leads away from that text on every prompt alike;
- `to_empty`, `to_anchor`: the denoiser's predictions for the concept are led to those for no prompt, or the anchor;
- `patches`: what cross-attention writes moves most;
- `latents`: the picture so far decides, between two steps;
- `examples`: pictures of the concept are denoised worse.
"""
KINDS_OF_MODEL = {"pictures": "a text-to-image pipeline", "texts": "a language model", "both": "either kind of model"}
"""What answers so, in words."""
TINY_SAMPLING = Sampling(steps=2, guidance=2.0, batch=8)
"""How `tiny` erasers make pictures where they make some."""
On = TypeVar("On", bound=Subject)
"""The subjects that an eraser works on."""
Made = TypeVar("Made", bound=Edit | Intervention)
"""What an eraser returns."""


class Eraser(ABC, Generic[On, Made]):
    """A frozen dataclass of options that is called with what it works on. A subclass writes `make` and declares:

    >>> @dataclass(frozen=True)
    ... class Mine(Eraser[DiffusionSubject, Edit]):
    ...     name = "mine"
    ...     makes = "edit"
    ...     on = "pictures"
    ...     strength: float = 1.0
    ...
    ...     def make(self, subject, concept, found):
    ...         return self.edit(subject, concept, deltas, residual=0.01)

    Calling it checks that subject, concept and `found` are what it declares to need, and stamps what came out with
    method, options, subject, fingerprints of the prompts that it may have seen, and hashes of what it worked on.
    """

    name: ClassVar[str]
    """Its key in ERASERS."""
    makes: ClassVar[Literal["edit", "guard", "either"]]
    """A change of weights, an intervention while the model runs, or `either`, as its option `how` says."""
    on: ClassVar[Literal["pictures", "texts", "both"]]
    """Subjects that it can erase from: those that answer with pictures, with texts, or either."""
    needs: ClassVar[Needs] = NOTHING
    aims: ClassVar[Aim] = "prompts"
    solves: ClassVar[bool] = False
    """Whether it is a linear solve, which says how far it came: `gap_left` in its `made_by`."""
    leads_by_guidance: ClassVar[bool] = False
    """Whether it acts through what guidance asks for without the prompt: it can do nothing where guidance asks no such
    thing, and says so when pictures are made that way."""
    attention: ClassVar[Literal["any", "cross", "joint"]] = "any"
    """Whether it takes attention from the image to a text that stays as it is, as in a U-Net (`cross`), attention of text and
    image to each other in which the text has queries and keys of its own (`joint`), or works on either."""
    asks: ClassVar[bool] = False
    """Whether what it makes asks more of the subject that it was made on, or reads from it, while it acts."""
    origin: ClassVar[Literal["ours", "published", "control"]] = "published"
    """Whose method it is: this project's own, a published one or a part of it, or a control."""
    authors: ClassVar[Published | None] = None
    """The settings of those who published it; None for methods that nobody else did."""

    def __post_init__(self) -> None:
        check_arguments(self, self.name)

    @classmethod
    def tiny(cls) -> Self:
        """Options under which it shows on a tiny random model within seconds: what the laws are tried on."""
        return cls()

    @final
    @classmethod
    def published(cls) -> Self:
        """With the settings of those who published it, in the options that it has here; what these lack stands in `authors`.

        >>> Esd.published().training.rate
        5e-05

        Raises ValueError for a method of this project or a control, and where the published settings are not known.
        """
        if cls.authors is None:
            whose = {
                "ours": "is this project's own",
                "control": "is a control",
                "published": "doesn't say what they are",
            }
            raise ValueError(
                f"{cls.name} was asked for with published settings, and it {whose[cls.origin]}; leave that out"
            )
        if cls.authors.read_in == "nowhere":
            raise ValueError(
                f"{cls.name} was asked for with published settings, which are not known here; give options of your own"
            )
        return cls(**cls.authors.options)

    @final
    @classmethod
    def suits(cls, subject: Subject) -> bool:
        """Whether the subject answers with what this method erases from."""
        return cls.on in ("both", subject.answers)

    def refuses(self, subject: Subject) -> str | None:
        """Why these options can't work on a subject that the method suits, with the mend; None where they can."""
        if self.attention == "cross" and "cross_query" not in subject.roles():
            return (
                f"{self.name} takes attention from the image to a text that stays as it is, and in {subject.name!r} text and image "
                "attend to each other; UCE, RECE and SPEED edit such models block by block"
            )
        if self.attention == "joint" and not {"joint_text_query", "joint_text_key"} <= set(subject.roles()):
            return (
                f"{self.name} takes attention of text and image to each other, in which the text has queries and keys of its own, "
                f"and {subject.name!r} has none; ESD, concept ablation and SPM train the attention that it has"
            )
        return None

    @final
    def refuse_unfit(self, subject: Subject) -> None:
        """Raise TypeError for a subject that answers in another way, ValueError for one that these options can't work on."""
        if not self.suits(subject):
            raise TypeError(
                f"{self.name} erases from models that answer with {self.on}: it needs {KINDS_OF_MODEL[self.on]}, and "
                f"{subject.name!r} is of family {subject.family!r}, which answers with {subject.answers}"
            )
        if (reason := self.refuses(subject)) is not None:
            raise ValueError(reason)

    @final
    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Made:
        """Make the erasure; nothing is applied until `with erasure.on(subject)`.

        Of `found`, what the method declares to work on is used. Raises TypeError for a subject that answers in another
        way, ValueError where concept or `found` lack what the method declares to need.
        """
        if concept.parts:
            return self.together(subject, concept.parts, found)
        with subject.state.alone():
            used = self.checked(subject, concept, found)
            made = self.make(cast(On, subject), concept, used)
            return self._stated(made, subject, (concept,), used)

    @final
    def together(self, subject: Subject, concepts: Sequence[Concept], found: Sequence[Subspace] = ()) -> Made:
        """One erasure of several concepts; of one it is that of a call.

        >>> edit = Uce().together(subject, [camel, rocket])

        Each concept is checked as in a call. A closed form solves once for all, what is trained has lessons of all in turn,
        directions are fitted for each, and guards know the names of all. Raises as a call does, and ValueError for no
        concept or two of one name.
        """
        whole = united(concepts)
        if not whole.parts:
            return self(subject, whole, found)
        with subject.state.alone():
            every = [self.checked(subject, concept, found) for concept in whole.parts]
            used = tuple({id(space): space for of in every for space in of}.values())
            self._refuse_half_found(whole, used)
            made = self.make_together(cast(On, subject), whole, used)
            return self._stated(made, subject, whole.parts, used)

    @final
    def _refuse_half_found(self, whole: Concept, used: Sequence[Subspace]) -> None:
        """Raise ValueError where all that it works on was found for some of the concepts, so that others would stay."""
        names, own = {space.concept for space in used}, [concept.name for concept in whole.parts]
        some, left = [name for name in own if name in names], [name for name in own if name not in names]
        if some and left and not self.needs.optional and not names - set(own):
            raise ValueError(
                f"{self.name} of {whole.name!r}: all of the {len(used)} subspaces that were given were found for "
                f"{', '.join(map(repr, some))}, and none for {', '.join(map(repr, left))}; find some for each concept, and give "
                "them all at once"
            )

    @abstractmethod
    def make(self, subject: On, concept: Concept, found: tuple[Subspace, ...]) -> Made:
        """The erasure, with what was measured in the making as its `made_by`; the caller stamps the rest."""

    def make_together(self, subject: On, whole: Concept, found: tuple[Subspace, ...]) -> Made:
        """As `make`, of several concepts, the `parts` of one whose prompts are those of all; a method may have a way of its
        own."""
        return self.make(subject, whole, found)

    @final
    def _stated(self, made: Made, subject: Subject, concepts: Sequence[Concept], used: tuple[Subspace, ...]) -> Made:
        """Stamped, with a warning of what a solve left open."""
        name = "+".join(concept.name for concept in concepts)
        for gap in wide_gaps(made.made_by):
            warnings.warn(f"{self.name} of {name!r}: {gap}; see its `made_by`", stacklevel=3)
        return self.stamped(made, subject, concepts, used)

    @final
    def edit(self, subject: Subject, concept: Concept, deltas: Mapping[str, Delta], **measured: Any) -> Edit:
        """An edit by this method of the weights as they are."""
        return Edit(self.name, concept.name, deltas, subject.weight_hash(), measured)

    @final
    def guard(
        self, concept: Concept, actions: Mapping[Site, Change], between: Between | None = None, **measured: Any
    ) -> Intervention:
        """An intervention by this method, at its option `strength` where it has one."""
        strength = getattr(self, "strength", 1.0)
        return Intervention(self.name, concept.name, actions, strength, measured, between, self.leads_by_guidance)

    @final
    def stamped(self, made: Made, subject: Subject, concepts: Sequence[Concept], found: Sequence[Subspace]) -> Made:
        """`made`, with what it was made by, from, of and for."""
        made_by = provenance(self, subject, concepts, found, made.made_by)
        if isinstance(made, Edit):
            return replace(made, made_by=made_by)
        return replace(made, made_by=made_by, base_hash=subject.weight_hash(), asks=subject if self.asks else None)

    @final
    def checked(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> tuple[Subspace, ...]:
        """What of `found` the method works on. Raises as a call does, and for an autoencoder of another model."""
        self.refuse_unfit(subject)
        needs, options = self.needs, vars(self)
        used: tuple[Subspace, ...] = ()
        if needs.found != "nothing":
            material = MATERIAL[needs.found]
            used = tuple(space for space in found if material.fits(subject, space))
            if not used and not needs.optional:
                raise ValueError(
                    f"{self.name} needs {material.what}; {len(found)} subspaces were given, none of them such. "
                    f"{material.finder}"
                )
        for base_hash in dict.fromkeys(space.base_hash for space in used):
            first = next(space for space in used if space.base_hash == base_hash)
            mend = "Find it again on this model, or say that you mean it with dataclasses.replace(space, base_hash='')"
            refuse_other_base(f"{self.name}: what was found at {first.site} is of a model", base_hash, subject, mend)
        for codec in {id(space.codec): space.codec for space in used if space.codec is not None}.values():
            check_belongs(codec, subject)
        sources = options.get("sources", ("target", "paraphrases"))
        if needs.answers and not any(p.answers for kind in sources for p in concept.prompts(kind, "fit")):
            raise ValueError(
                f"{self.name}: no fit prompt of {concept.name!r} in {', '.join(sources)} has `answers`, so there is "
                "nothing to unlearn; give its prompts answers"
            )
        if needs.anchor and options.get("guide") is None and not concept.anchor.fit:
            mend = "give it some, or a `guide`" if "guide" in options else "give it some"
            raise ValueError(f"{self.name}: {concept.name!r} has no anchor prompts (fit split); {mend}")
        if needs.examples and (concept.examples is None or not len(concept.examples)):
            raise ValueError(
                f"{self.name} needs pictures of {concept.name!r}: give the concept `examples` (n, 3, h, w) in 0..1"
            )
        return used
