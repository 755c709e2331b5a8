"""Find the concept vectors of a subject: rank on the fit split, keep what is causal on the select split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from concept_probe.find.causal import Ladder, Panel, Removal, climb, panel
from concept_probe.find.layout import NAMED_KINDS
from concept_probe.find.vectors import (
    Effect,
    RankedColumns,
    TextDirections,
    project_texts,
    rank_columns,
    text_directions,
    zero_columns,
)
from concept_probe.types import Concept, Recogniser, Sampling, Score, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

COLUMN_LADDER = (8, 16, 32, 64)
DIRECTION_LADDER = (1, 2, 3, 6, 9)
CROSS_ROLES = ("cross_key_weight", "cross_value_weight")


@dataclass(frozen=True)
class VectorSearch:
    """What a search for concept vectors found, and the pictures' evidence for it."""

    subspaces: tuple[Subspace, ...]
    """Empty where no candidate was causal."""
    ladder: Ladder


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
    images: int = 16,
    controls: int = 2,
    goal: float = 0.2,
    retain: float = 0.9,
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> VectorSearch:
    """Columns of the text encoders' MLP output matrices; one Subspace of rank 1 per column kept, `site.item` its index.

    `score` is the paired drop of detection with all of them removed, against as many random columns
    of the same layers with like mean |coefficient| x norm; `scores` holds the column's own rank score.
    """
    ranked = ranked or rank_columns(subject, concept, sites=sites, kinds=kinds, effect=effect)
    generator = torch.Generator().manual_seed(seed)
    most = len(ranked.sites) // 2
    counts = sorted({min(count, most) for count in counts})
    ladder = climb(
        subject,
        tested or panel(concept, images=images, seed=seed),
        recogniser,
        counts,
        lambda m: _zeroing(subject, ranked, range(m)),
        lambda m: [_zeroing(subject, ranked, ranked.matched(range(m), generator)) for _ in range(controls)],
        goal=goal,
        retain=retain,
        sampling=sampling,
        seed=seed,
    )
    rung = ladder.chosen()
    return VectorSearch(() if rung is None else _columns(subject, concept, ranked, rung.count, rung.drop), ladder)


def _zeroing(subject: Subject, ranked: RankedColumns, chosen: Sequence[int]) -> Removal:
    return lambda: zero_columns(subject, ranked.by_layer(chosen))


def _columns(
    subject: Subject, concept: Concept, ranked: RankedColumns, count: int, drop: Score
) -> tuple[Subspace, ...]:
    typical = float(ranked.scores.median())
    out = []
    for site, score in zip(ranked.sites[:count], ranked.scores[:count].tolist(), strict=True):
        column = subject.parameter(site).detach()[:, site.item, None]
        own = Score(f"contrast x effect ({ranked.effect})", score, score, score, 1, "", "higher", typical)
        out.append(Subspace(site, column.float().clone(), "parameter", drop, concept.name, "mlp_value", scores=(own,)))
    return tuple(out)


def search_directions(
    subject: Subject,
    concept: Concept,
    *,
    recogniser: Recogniser,
    roles: Sequence[str] = CROSS_ROLES,
    directions: TextDirections | None = None,
    counts: Sequence[int] = DIRECTION_LADDER,
    tested: Panel | None = None,
    images: int = 16,
    controls: int = 2,
    goal: float = 0.2,
    retain: float = 0.9,
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> VectorSearch:
    """Parts of cross-attention's K/V matrices along the concept's text directions; one Subspace per matrix.

    `basis` (d_in, k) and `dual` are on the input side of the matrix: removing them is
    W <- W - (W basis) dualᵀ. The random control removes, in the same way, as many directions of the
    same lengths drawn from the covariance of the other prompts' states.
    """
    sites = [site for role in roles for site in subject.sites(role)]
    directions = directions or text_directions(subject, concept)
    most = directions.basis.shape[1]
    counts = sorted({min(count, most) for count in counts})
    others = _random_directions(directions, max(counts), controls, seed)
    ladder = climb(
        subject,
        tested or panel(concept, images=images, seed=seed),
        recogniser,
        counts,
        lambda m: lambda: project_texts(subject, directions.removal(m), sites),
        lambda m: [lambda mixed=mixed: project_texts(subject, mixed.removal(m), sites) for mixed in others],
        goal=goal,
        retain=retain,
        sampling=sampling,
        seed=seed,
    )
    rung = ladder.chosen()
    if rung is None:
        return VectorSearch((), ladder)
    removal = directions.removal(rung.count)
    dual, basis = removal.dual.float(), removal.basis.float()
    role_of = {site: role for role in roles for site in subject.sites(role)}
    return VectorSearch(
        tuple(Subspace(s, basis, "parameter", rung.drop, concept.name, role_of[s], dual=dual) for s in sites), ladder
    )


def _random_directions(directions: TextDirections, count: int, controls: int, seed: int) -> list[TextDirections]:
    """Gaussian directions with the covariance of the other prompts' states, each as long as the one it stands for."""
    generator = torch.Generator().manual_seed(seed)
    others = directions.others
    centred = others - others.mean(0)
    out = []
    for _ in range(controls):
        mix = torch.randn(len(others), count, generator=generator, dtype=torch.float64).to(others)
        drawn = centred.mT @ mix
        lengths = torch.linalg.vector_norm(directions.basis[:, :count], dim=0)
        drawn = drawn / torch.linalg.vector_norm(drawn, dim=0).clamp_min(1e-30) * lengths
        out.append(TextDirections(drawn, others, tuple(f"random {i}" for i in range(count))))
    return out


def find_vectors(
    subject: Subject,
    concept: Concept,
    *,
    recogniser: Recogniser,
    role: str | Sequence[str] = "mlp_value",
    counts: Sequence[int] | None = None,
    images: int = 16,
    controls: int = 2,
    goal: float = 0.2,
    retain: float = 0.9,
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> tuple[Subspace, ...]:
    """The concept's vectors in parameter space, kept only if causal on generated pictures of the select split.

    `role` is `mlp_value` (columns of the text encoder's MLP output matrices) or one or both of
    `cross_key_weight`, `cross_value_weight`. More and more candidates (`counts`) are removed until
    detection is at most `goal` while others keep `retain` of their recognition; without that, the
    count that removes most. Empty where nothing beats matched random ones. `search_columns` and
    `search_directions` give the ladder too.
    """
    roles = (role,) if isinstance(role, str) else tuple(role)
    options = {
        "recogniser": recogniser, "images": images, "controls": controls, "goal": goal, "retain": retain,
        "sampling": sampling, "seed": seed,
    }  # fmt: skip
    if roles == ("mlp_value",):
        return search_columns(subject, concept, counts=counts or COLUMN_LADDER, **options).subspaces
    if roles and set(roles) <= set(CROSS_ROLES):
        return search_directions(subject, concept, roles=roles, counts=counts or DIRECTION_LADDER, **options).subspaces
    raise ValueError(
        f"role {role!r} holds no concept vectors: ask for 'mlp_value', or for one or both of {', '.join(CROSS_ROLES)}"
    )
