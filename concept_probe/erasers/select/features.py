"""The ablation of a concept's features, whose number and strength are chosen by what pictures show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from concept_probe.arguments import Count, check_arguments
from concept_probe.erasers.ablation.ablate_features import AblateFeatures
from concept_probe.erasers.select.choose import CHOICE, Choice, choose
from concept_probe.evaluation.panel import Panel
from concept_probe.evaluation.selection import Selection
from concept_probe.find.features.contrast import Formula, find_features
from concept_probe.types import Concept, Recogniser, SparseCoder, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


def strongest_features(found: Sequence[Subspace], count: int) -> tuple[Subspace, ...]:
    """The `count` features of largest contrast of each Subspace of `find_features`."""
    return tuple(
        replace(s, basis=s.basis[:, :count], features=s.features[:count], scores=s.scores[:count]) for s in found
    )


@dataclass(frozen=True)
class FeatureMixes:
    """What is tried for each autoencoder: every mix of these."""

    counts: Sequence[Count] = (16, 64)
    """Features of largest contrast."""
    strengths: Sequence[float] = (1.6, 2.0, 2.5)
    formulas: Sequence[Formula] = ("margin", "share")
    """Of the contrast, see `find.contrast`."""
    errors: Sequence[str] = ("keep",)
    """What becomes of the part that the autoencoder does not explain."""

    def __post_init__(self) -> None:
        check_arguments(self, "feature mixes")


def choose_features(
    subject: Subject,
    concept: Concept,
    saes: Sequence[SparseCoder],
    *,
    recogniser: Recogniser,
    mixes: FeatureMixes = FeatureMixes(),
    tested: Panel | None = None,
    selection: Selection = CHOICE,
) -> Choice:
    """The ablation of the concept's features that removes it most surely from pictures of the select split.

    For each autoencoder alone, and for every one of `mixes`, pictures are made; `choose` picks. `found` of the Choice holds
    the features of the chosen mix.
    """
    candidates, used = {}, {}
    for sae in saes:
        found = {
            formula: find_features(sae, subject, concept, count=max(mixes.counts), formula=formula)
            for formula in mixes.formulas
        }
        for strength, count, formula, error in product(mixes.strengths, mixes.counts, mixes.formulas, mixes.errors):
            name = f"{sae.site}, {count} features by {formula} x {strength:g}, error {error}"
            eraser = AblateFeatures(strength=strength, error=error)  # pyright: ignore[reportArgumentType]
            used[name] = strongest_features(found[formula], count)
            candidates[name] = eraser(subject, concept, used[name])
    choice = choose(candidates, subject, concept, recogniser=recogniser, tested=tested, selection=selection)
    return replace(choice, found=used[choice.name])
