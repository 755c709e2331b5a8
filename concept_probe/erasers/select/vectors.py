"""The ablation of concept vectors, whose number and strength are chosen by what pictures show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import torch

from concept_probe.erasers.ablation.ablate_vectors import AblateVectors
from concept_probe.erasers.select.choose import CHOICE, Choice, choose
from concept_probe.evaluation.bootstrap import mean_score
from concept_probe.evaluation.panel import Panel, panel, recognised
from concept_probe.evaluation.selection import Selection
from concept_probe.find.vectors.candidates import vector_candidates
from concept_probe.types import Concept, Recogniser

if TYPE_CHECKING:
    from concept_probe.families import Subject

COLUMNS_TRIED = (24, 48, 96)
"""How many columns of matrices are tried."""
DIRECTIONS_TRIED = (1, 2, 4)
"""How many directions that a matrix reads are tried."""


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
    counts = counts or (COLUMNS_TRIED if role == "mlp_value" else DIRECTIONS_TRIED)
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
            seen.append(recognised(subject, tested.forget, recogniser, sampling, tested.concept))
    drop = mean_score(seen[0] - seen[1], "drop against matched random ones", control=0.0, better="higher", seed=seed)
    if drop.low <= 0:
        return None
    return replace(choice, found=tuple(replace(s, score=drop) for s in ranked.take(count)))
