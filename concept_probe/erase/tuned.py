"""Feature ablation whose number of features and strength are chosen by what pictures show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from concept_probe.erase.ablate_features import AblateFeatures
from concept_probe.erase.choose import Choice, choose
from concept_probe.find.causal import Panel
from concept_probe.find.features import find_features
from concept_probe.types import Codec, Concept, Recogniser, Sampling, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


def strongest(found: Sequence[Subspace], count: int) -> tuple[Subspace, ...]:
    """The `count` features of largest contrast of each Subspace of `find_features`."""
    return tuple(
        replace(s, basis=s.basis[:, :count], features=s.features[:count], scores=s.scores[:count]) for s in found
    )


def choose_features(
    subject: Subject,
    concept: Concept,
    saes: Sequence[Codec],
    *,
    recogniser: Recogniser,
    counts: Sequence[int] = (4, 8, 16),
    strengths: Sequence[float] = (1.0, 1.5, 2.0),
    errors: Sequence[str] = ("keep",),
    tested: Panel | None = None,
    images: int = 24,
    goal: float = 0.1,
    retain: float = 0.95,
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> Choice:
    """The gentlest ablation of the concept's features that removes it from pictures of the select split.

    For each autoencoder alone, and for every mix of number of features, strength and treatment of the
    error term, pictures are made (see `choose`); candidates go from few features and low strength up.
    """
    candidates = {}
    for sae in saes:
        found = find_features(sae, subject, concept, count=max(counts))
        for strength, count, error in product(strengths, counts, errors):
            name = f"{sae.site}, {count} features x {strength:g}, error {error}"
            eraser = AblateFeatures(strength=strength, error=error)  # pyright: ignore[reportArgumentType]
            candidates[name] = eraser(subject, concept, strongest(found, count))
    return choose(
        candidates, subject, concept, recogniser=recogniser, tested=tested, images=images, goal=goal, retain=retain,
        sampling=sampling, seed=seed,
    )  # fmt: skip
