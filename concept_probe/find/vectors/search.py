"""Find the concept vectors of a subject: rank on the fit split, keep what is causal on the select split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from concept_probe.evaluation.panel import Panel, panel
from concept_probe.families.text.kinds import NAMED_KINDS
from concept_probe.find.vectors.candidates import (
    CROSS_ROLES,
    RANKINGS,
    Candidates,
    ColumnCandidates,
    DirectionCandidates,
    random_directions,
)
from concept_probe.find.vectors.causal import Ladder, Removal, climb
from concept_probe.find.vectors.rank import (
    Effect,
    RankedColumns,
    TextDirections,
    project_texts,
    rank_columns,
    text_directions,
    zero_columns,
)
from concept_probe.types import Concept, Recogniser, Sampling, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

COLUMN_LADDER = (24, 48, 72, 96, 128, 192)
DIRECTION_LADDER = (1, 2, 3, 6, 9)


@dataclass(frozen=True)
class VectorSearch:
    """What a search for concept vectors found, and the pictures' evidence for it."""

    subspaces: tuple[Subspace, ...]
    """Empty where no candidate was causal."""
    ladder: Ladder

    def merit(self) -> tuple[bool, bool, float]:
        """What searches are compared by: both marks reached, the goal reached, how little is left."""
        rung = self.ladder.chosen()
        if rung is None:
            return False, False, -math.inf
        return self.ladder.done() is not None, rung.left() <= self.ladder.goal, -rung.left()


def search_columns(
    subject: Subject,
    concept: Concept,
    *,
    recogniser: Recogniser,
    sites: Sequence[Site] | None = None,
    ranked: RankedColumns | None = None,
    kinds: Sequence[str] = NAMED_KINDS,
    effect: Effect = "gradient",
    counts: Sequence[int] = COLUMN_LADDER,
    tested: Panel | None = None,
    images: int = 24,
    controls: int = 1,
    goal: float = 0.2,
    retain: float = 0.95,
    floor: float = 0.9,
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> VectorSearch:
    """Columns of the text encoders' MLP output matrices; one Subspace of rank 1 per column kept, `site.item` its index.

    `score` is the paired drop of detection with all of them removed, against as many random columns
    of the same layers with like mean |coefficient| x norm; `scores` holds the column's own rank score.
    """
    ranked = ranked or rank_columns(subject, concept, sites=sites, kinds=kinds, effect=effect)
    generator = torch.Generator().manual_seed(seed)
    candidates = ColumnCandidates(subject, concept, ranked)
    counts = sorted({min(count, candidates.most) for count in counts})
    ladder = climb(
        subject,
        tested or panel(concept, images=images, others=2 * images, seed=seed),
        recogniser,
        counts,
        lambda m: _zeroing(subject, ranked, range(m)),
        lambda m: [_zeroing(subject, ranked, ranked.matched(range(m), generator)) for _ in range(controls)],
        goal=goal,
        retain=retain,
        floor=floor,
        sampling=sampling,
        seed=seed,
    )
    return VectorSearch(_kept(candidates, ladder), ladder)


def _kept(candidates: Candidates, ladder: Ladder) -> tuple[Subspace, ...]:
    """The candidates of the chosen rung, scored by what pictures lost; none where no rung was chosen."""
    rung = ladder.chosen()
    return () if rung is None else tuple(replace(s, score=rung.drop) for s in candidates.take(rung.count))


def _zeroing(subject: Subject, ranked: RankedColumns, chosen: Sequence[int]) -> Removal:
    return lambda: zero_columns(subject, ranked.by_layer(chosen))


def search_directions(
    subject: Subject,
    concept: Concept,
    *,
    recogniser: Recogniser,
    roles: Sequence[str] = CROSS_ROLES,
    directions: TextDirections | None = None,
    counts: Sequence[int] = DIRECTION_LADDER,
    tested: Panel | None = None,
    images: int = 24,
    controls: int = 1,
    goal: float = 0.2,
    retain: float = 0.95,
    floor: float = 0.9,
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> VectorSearch:
    """Parts of cross-attention's K/V matrices along the concept's text directions; one Subspace per matrix.

    `basis` (d_in, k) and `dual` are on the input side of the matrix: removing them is
    W <- W - (W basis) dualᵀ. The random control removes, in the same way, as many directions of the
    same lengths drawn from the covariance of the other prompts' states.
    """
    directions = directions or text_directions(subject, concept)
    candidates = DirectionCandidates(subject, concept, directions, roles)
    counts = sorted({min(count, candidates.most) for count in counts})
    others = [random_directions(directions, max(counts), seed + i) for i in range(controls)]
    ladder = climb(
        subject,
        tested or panel(concept, images=images, others=2 * images, seed=seed),
        recogniser,
        counts,
        lambda m: lambda: project_texts(subject, directions.removal(m), candidates.sites),
        lambda m: [lambda mixed=mixed: project_texts(subject, mixed.removal(m), candidates.sites) for mixed in others],
        goal=goal,
        retain=retain,
        floor=floor,
        sampling=sampling,
        seed=seed,
    )
    return VectorSearch(_kept(candidates, ladder), ladder)


def find_vectors(
    subject: Subject,
    concept: Concept,
    *,
    recogniser: Recogniser,
    role: str | Sequence[str] = "mlp_value",
    counts: Sequence[int] | None = None,
    images: int = 24,
    controls: int = 1,
    goal: float = 0.2,
    retain: float = 0.95,
    floor: float = 0.9,
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> tuple[Subspace, ...]:
    """The concept's vectors in parameter space, kept only if causal on generated pictures of the select split.

    `role` is `mlp_value` (columns of the text encoder's MLP output matrices) or one or both of
    `cross_key_weight`, `cross_value_weight`. More and more candidates (`counts`) are removed until
    detection is at most `goal` while others keep `retain` of their recognition; without that, the
    count that removes most while they keep `floor`. Columns are ranked in several ways (`RANKINGS`) until
    one gets there. Empty where nothing beats matched random ones. `search_columns` and
    `search_directions` give the ladder too.
    """
    roles = (role,) if isinstance(role, str) else tuple(role)
    options = {
        "recogniser": recogniser, "images": images, "controls": controls, "goal": goal, "retain": retain,
        "floor": floor, "sampling": sampling, "seed": seed,
    }  # fmt: skip
    if roles == ("mlp_value",):
        searches = []
        for effect, kinds in RANKINGS:
            options |= {"effect": effect, "kinds": kinds}
            searches.append(search_columns(subject, concept, counts=counts or COLUMN_LADDER, **options))
            if searches[-1].ladder.done():
                break
        return max(searches, key=VectorSearch.merit).subspaces
    if roles and set(roles) <= set(CROSS_ROLES):
        return search_directions(subject, concept, roles=roles, counts=counts or DIRECTION_LADDER, **options).subspaces
    raise ValueError(
        f"role {role!r} holds no concept vectors: ask for 'mlp_value', or for one or both of {', '.join(CROSS_ROLES)}"
    )
