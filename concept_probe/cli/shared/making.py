"""From the name of an eraser to an erasure: what it says that it needs is found first, in the way of its subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from concept_probe.cli.common import saes_of
from concept_probe.cli.console import err
from concept_probe.cli.shared.drawing import rescaled, sampling_of

if TYPE_CHECKING:
    from concept_probe.erasers import Eraser
    from concept_probe.evaluation.selection import Selection
    from concept_probe.families import Subject
    from concept_probe.learn import Sae
    from concept_probe.types import Concept, Erasure, Judge, Subspace

FIRST_CHOICE = {"pictures": "ablate_features", "texts": "npo"}
"""The eraser where none is named, by what a subject answers with."""
GENTLE: dict[str, dict[str, Any]] = {"npo": {"steps": 16, "rate": 0.003, "keep": "kl"}}
"""Options under which `run` makes an eraser: few small steps, with other texts held where they are; minutes, no wreck."""


@dataclass(frozen=True)
class Effort:
    """How much is measured where something is chosen; None leaves the default."""

    images: int | None = None
    """Answers that ask for the concept in one measurement."""
    steps: int | None = None
    """Denoising steps of a picture."""
    guidance_rescale: float = 0.0
    """Of every picture that is drawn, in a choice or not."""

    def of(self, selection: Selection) -> Selection:
        """`selection` with this effort: a screening makes no more answers than the careful look."""
        images = self.images or selection.images
        steps = self.steps or selection.sampling.steps
        rescale = self.guidance_rescale or selection.sampling.guidance_rescale
        return replace(
            selection,
            images=images,
            screening=min(selection.screening, images) if self.images else selection.screening,
            sampling=replace(selection.sampling, steps=steps, guidance_rescale=rescale),
        )


def step(text: str) -> None:
    err.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def asked_method(name: str, published: bool) -> str | Eraser[Any, Any]:
    """The eraser of a name: the name itself, or what it is with the settings of those who published it."""
    from concept_probe.erasers import ERASERS
    from concept_probe.registry import look_up

    kind = look_up(ERASERS, name, "eraser", "concept-probe info erasers")
    return kind.published() if published else name


def works_on(kind: type[Eraser[Any, Any]]) -> str:
    """What an eraser has to be given: a kind of `Found`, `nothing` where it finds that by itself."""
    return "nothing" if kind.needs.optional else kind.needs.found


def needs_features(kind: type[Eraser[Any, Any]]) -> bool:
    """Whether it can't start without an autoencoder's features."""
    return works_on(kind).endswith("features")


def is_chosen(kind: type[Eraser[Any, Any]], what: str) -> bool:
    """Whether how much of what it works on, and how strongly, is chosen too: so are methods of this project meant."""
    return kind.origin == "ours" and works_on(kind) == what


def made(
    name: str | Eraser[Any, Any], subject: Subject, concept: Concept, looks: Any, found: Sequence[Subspace],
    sae: Sequence[str] | None, effort: Effort = Effort(),
) -> Erasure:  # fmt: skip
    """The erasure of an eraser, named or with its options, from what was found; features that it needs and lacks are found
    first."""
    from concept_probe.erasers import ERASERS, choose_features, erase
    from concept_probe.erasers.select.choose import CHOICE
    from concept_probe.families.subject import SAMPLING
    from concept_probe.find import RowQuery, find_features
    from concept_probe.learn import over_text
    from concept_probe.registry import look_up

    sampling = sampling_of(subject, effort.guidance_rescale)
    kind = look_up(ERASERS, name, "eraser", "concept-probe info erasers") if isinstance(name, str) else type(name)
    if found or not needs_features(kind):
        return erase(name, subject, concept, found, judge=looks, sampling=sampling)
    saes = saes_of(sae, subject)
    if isinstance(name, str) and subject.answers == "pictures" and is_chosen(kind, "features"):
        chosen = choose_features(subject, concept, over_text(saes), recogniser=looks, selection=effort.of(CHOICE))
        return chosen.erasure
    which = RowQuery(sampling=rescaled(subject, SAMPLING, effort.guidance_rescale))
    found = find_features(saes, subject, concept, which=which)
    return erase(name, subject, concept, found, judge=looks, sampling=sampling)


def found_and_made(
    name: str, subject: Subject, concept: Concept, looks: Judge, autoencoders: Sequence[Sae], seed: int,
    effort: Effort = Effort(),
) -> tuple[tuple[Subspace, ...], Erasure]:  # fmt: skip
    """What of the concept was found, for the erasure and for an audit, and the erasure as strong as it should be."""
    make = _from_texts if subject.answers == "texts" else _from_pictures
    return make(name, subject, concept, looks, autoencoders, seed, effort)


def _from_pictures(
    name: str, subject: Any, concept: Concept, looks: Any, autoencoders: Sequence[Sae], seed: int, effort: Effort,
) -> tuple[tuple[Subspace, ...], Erasure]:  # fmt: skip
    """What can be chosen is chosen by pictures of the select split."""
    from concept_probe.erasers import ERASERS, choose_features, choose_vectors, erase
    from concept_probe.erasers.select.choose import CHOICE
    from concept_probe.find import find_features
    from concept_probe.learn import over_text

    saes, selection = over_text(autoencoders), effort.of(replace(CHOICE, seed=seed))
    found = tuple(find_features(saes, subject, concept, seed=seed)) if saes else ()
    if is_chosen(ERASERS[name], "features"):
        choice = choose_features(subject, concept, saes, recogniser=looks, selection=selection)
        step(f"chosen of {len(choice.screened)}: {choice.name}")
        return found, choice.erasure
    if is_chosen(ERASERS[name], "vectors"):
        choice = choose_vectors(subject, concept, recogniser=looks, selection=selection)
        if choice is not None:
            step(f"chosen of {len(choice.screened)}: {choice.name}")
            return (*found, *choice.found), choice.erasure
    sampling = sampling_of(subject, effort.guidance_rescale)
    return found, erase(name, subject, concept, found, judge=looks, sampling=sampling)


def _from_texts(
    name: str, subject: Any, concept: Concept, looks: Any, autoencoders: Sequence[Sae], seed: int, effort: Effort,
) -> tuple[tuple[Subspace, ...], Erasure]:  # fmt: skip
    """The strength is chosen on the select split. Columns are looked for where they are worked on."""
    from concept_probe.erasers import ERASERS, choose_strength, erase
    from concept_probe.erasers.select.strength import STRENGTH_CHOICE, STRENGTHS
    from concept_probe.evaluation.panel import NothingSeen
    from concept_probe.find import find_features, find_lm_columns

    found = tuple(find_features(autoencoders, subject, concept, seed=seed)) if autoencoders else ()
    if works_on(ERASERS[name]) in ("vectors", "columns"):
        step(f"looking for columns that answers on {concept.name} need")
        columns = find_lm_columns(subject, concept, seed=seed)
        if not columns:
            raise LookupError(
                f"no columns of {subject.name} were found that answers on {concept.name!r} need more than random ones, so "
                f"there is nothing to ablate; take another eraser, such as --eraser {FIRST_CHOICE['texts']}"
            )
        step(f"{len(columns)} columns found")
        found = (*found, *columns)
    step(f"making an erasure by {name}")
    eraser = ERASERS[name](**GENTLE[name], seed=seed) if name in GENTLE else name  # pyright: ignore[reportCallIssue]
    erasure = erase(eraser, subject, concept, found)
    step("choosing its strength")
    selection = effort.of(replace(STRENGTH_CHOICE, sampling=sampling_of(subject), seed=seed))
    try:
        choice = choose_strength(subject, concept, erasure, recogniser=looks, selection=selection)
    except NothingSeen as problem:
        step(f"no strength can be chosen, so the gentlest is taken: {problem}")
        return found, erasure.scaled(min(STRENGTHS))
    for tried in choice.tried:
        step(
            f"{tried.name}: {tried.residual():.0%} of the concept's answers right, others keep {tried.retention():.0%}"
        )
    return found, choice.erasure
