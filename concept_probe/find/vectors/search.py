"""Find the concept vectors of a subject: rank on the fit split, keep what is causal on the select split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from concept_probe.detect import recogniser_for
from concept_probe.evaluation.panel import Panel, panel
from concept_probe.evaluation.selection import Selection
from concept_probe.find.vectors.candidates import Candidates, vector_candidates
from concept_probe.find.vectors.removal import RemovalCurve, removal_curve
from concept_probe.types import Concept, Recogniser, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class VectorSearch:
    """What a search for concept vectors found, and the images' evidence for it."""

    subspaces: tuple[Subspace, ...]
    """Empty where no candidate was causal."""
    curve: RemovalCurve

    def merit(self) -> tuple[bool, bool, float]:
        """What searches are compared by: both marks reached, the goal reached, how little is left."""
        chosen = self.curve.chosen()
        if chosen is None:
            return False, False, -math.inf
        reached_goal = chosen.residual() <= self.curve.selection.goal
        return self.curve.done() is not None, reached_goal, -chosen.residual()


def search_vectors(
    candidates: Candidates,
    recogniser: Recogniser,
    *,
    counts: Sequence[int] = (),
    tested: Panel | None = None,
    controls: int = 1,
    selection: Selection = Selection(),
) -> VectorSearch:
    """Remove more and more of the candidates, see what images lose, and keep the best causal removal.

    >>> search_vectors(ColumnCandidates(subject, concept, rank_columns(subject, concept)), recogniser).curve.removals

    `score` of a Subspace is the paired drop of detection with all of them removed, against `controls` draws of as many
    matched random ones; `scores` holds its own rank score. `counts`: how many at a time, by default the candidates' own.
    Images are those of `tested`, else of a panel of the select split with `selection.images` that ask for the concept
    and twice as many that ask for others.
    """
    counts = sorted({min(count, candidates.most) for count in counts or candidates.counts})
    images = selection.images
    asked = tested or panel(candidates.concept, images=images, others=2 * images, seed=selection.seed)
    curve = removal_curve(candidates, asked, recogniser, counts, controls=controls, selection=selection)
    chosen = curve.chosen()
    kept = () if chosen is None else tuple(replace(s, score=chosen.drop) for s in candidates.take(chosen.count))
    return VectorSearch(kept, curve)


def find_vectors(
    subject: Subject,
    concept: Concept,
    *,
    recogniser: Recogniser | None = None,
    role: str | Sequence[str] = "mlp_value",
    counts: Sequence[int] = (),
    controls: int = 1,
    selection: Selection = Selection(),
) -> tuple[Subspace, ...]:
    """The concept's vectors in parameter space, kept only if causal on generated images of the select split.

    `role` is `mlp_value` (columns of the text encoder's MLP output matrices) or one or both of
    `cross_key_weight`, `cross_value_weight`. More and more candidates (`counts`) are removed until
    detection is at most `selection.goal` while others keep `selection.retain` of their recognition; without that, the
    count that removes most while they keep `selection.floor`. Columns are ranked in several ways (`COLUMN_RANKINGS`)
    until one gets there. Empty where nothing beats matched random ones. `search_vectors` gives the curve too.

    `recogniser` None takes the one that was made for the subject's pictures and sees the concept.
    ValueError for a role that holds no concept vectors.
    """
    ranked = vector_candidates(subject, concept, role)
    sees = recogniser or recogniser_for(concept.label, subject)
    searches: list[VectorSearch] = []
    for candidates in ranked:
        searches.append(
            search_vectors(candidates, sees, counts=counts, controls=controls, selection=selection),
        )
        if searches[-1].curve.done():
            break
    return max(searches, key=VectorSearch.merit).subspaces
