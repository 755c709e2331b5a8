"""Ablations whose strength and number of features or vectors are chosen by what pictures show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import torch

from concept_probe.erasers.ablation.ablate_features import AblateFeatures
from concept_probe.erasers.ablation.ablate_vectors import AblateVectors
from concept_probe.erasers.select.choose import CHOICE, Choice, choose
from concept_probe.evaluation.bootstrap import mean_score
from concept_probe.evaluation.panel import Panel, panel, recognised
from concept_probe.evaluation.selection import Selection
from concept_probe.find.features.contrast import Formula, find_features
from concept_probe.find.vectors.candidates import vector_candidates
from concept_probe.types import Concept, Recogniser, SparseCoder, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

COLUMN_COUNTS = (24, 48, 96)
DIRECTION_COUNTS = (1, 2, 4)


def strongest_features(found: Sequence[Subspace], count: int) -> tuple[Subspace, ...]:
    """The `count` features of largest contrast of each Subspace of `find_features`."""
    return tuple(
        replace(s, basis=s.basis[:, :count], features=s.features[:count], scores=s.scores[:count]) for s in found
    )


@dataclass(frozen=True)
class FeatureMixes:
    """What is tried for each autoencoder: every mix of these."""

    counts: Sequence[int] = (16, 64)
    """Features of largest contrast."""
    strengths: Sequence[float] = (1.6, 2.0, 2.5)
    formulas: Sequence[Formula] = ("margin", "share")
    """Of the contrast, see `find.contrast`."""
    errors: Sequence[str] = ("keep",)
    """What becomes of the part that the autoencoder does not explain."""


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


@torch.no_grad()
def choose_vectors(
    subject: Subject,
    concept: Concept,
    *,
    recogniser: Recogniser,
    role: str | Sequence[str] = "mlp_value",
    counts: Sequence[int] | None = None,
    strengths: Sequence[float] = (1.0, 1.5, 2.0),
    tested: Panel | None = None,
    selection: Selection = CHOICE,
) -> Choice | None:
    """The ablation of concept vectors that removes the concept most surely; None where random ones do as much.

    `role` as in `find_vectors`. For every ranking of candidates, number of them (`counts`) and strength (1
    removes, above 1 turns against), pictures are made; `choose` picks. Then as many matched random
    vectors are ablated with the same strength: `score` of each Subspace in `found` is the paired drop of
    detection against them, and where its interval reaches 0 nothing was found.
    """
    counts = counts or (COLUMN_COUNTS if role == "mlp_value" else DIRECTION_COUNTS)
    mixes, candidates = {}, {}
    for ranked in vector_candidates(subject, concept, role):
        for strength, count in product(strengths, sorted({min(count, ranked.most) for count in counts})):
            name = f"{count} {ranked.name} x {strength:g}"
            mixes[name] = (ranked, count, AblateVectors(strength=strength))
            candidates[name] = AblateVectors(strength=strength)(subject, concept, ranked.take(count))
    images, sampling, seed = selection.images, selection.sampling, selection.seed
    tested = tested or panel(concept, images=images, others=images * 4 // 3, seed=seed)
    choice = choose(candidates, subject, concept, recogniser=recogniser, tested=tested, selection=selection)
    ranked, count, eraser = mixes[choice.name]
    seen = []
    for erasure in (eraser(subject, concept, ranked.random(count, seed)), choice.erasure):
        with erasure.on(subject):
            seen.append(recognised(subject, tested.forget, recogniser, sampling, concept.name))
    drop = mean_score(seen[0] - seen[1], "drop against matched random ones", control=0.0, better="higher", seed=seed)
    if drop.low <= 0:
        return None
    return replace(choice, found=tuple(replace(s, score=drop) for s in ranked.take(count)))
