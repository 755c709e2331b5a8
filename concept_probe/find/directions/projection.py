"""What every direction of a concept has: the rows that it is fitted on, a projection, and a judgement of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.evaluation.auroc import auroc_scores
from concept_probe.find.layout import has_tokens
from concept_probe.find.rows import ConceptRows, RowQuery, concept_rows
from concept_probe.registry import UnknownName
from concept_probe.types import Concept, Score, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


DIRECTION_KINDS = ("subject", "eos", "pad")
"""Tokens that carry a concept in a causal text encoder: its own, and those that come after."""
DIRECTION_ROWS = RowQuery(DIRECTION_KINDS)


def contrast_directions(rows: ConceptRows) -> Float[Tensor, "d k"]:
    """Mean of the concept's rows minus mean of the others, one column per kind of token that has both."""
    x = rows.x
    return torch.stack([x[own].double().mean(0) - x[rest].double().mean(0) for own, rest in rows.both_sides()], 1)


def orthonormal(x: Float[Tensor, "d k"], tolerance: float = 1e-6) -> Float[Tensor, "d r"]:
    """An orthonormal basis of the span of the columns; directions weaker than `tolerance` of the first are dropped."""
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    return u[:, s > tolerance * s[:1].clamp_min(torch.finfo(s.dtype).tiny)]


@dataclass(frozen=True)
class Projection:
    """x -> x - basis (dualᵀ (x - mean))."""

    basis: Tensor
    """(d, k)"""
    dual: Tensor
    """(d, k)"""
    mean: Tensor | None
    """(d,); None for a linear projection"""

    def __call__(self, x: Tensor) -> Tensor:
        """x (..., d) -> (..., d)"""
        shifted = x if self.mean is None else x - self.mean
        return x - (shifted @ self.dual) @ self.basis.mT


def rows_to_fit(
    subject: Subject, concept: Concept, sites: Sequence[Site], which: RowQuery = DIRECTION_ROWS
) -> dict[Site, tuple[ConceptRows, ConceptRows]]:
    """Rows of the fit split and of the select split at activation sites, all from the same passes.

    Patches of an image have no kinds. Raises ValueError for the site of a weight, UnknownName for one without a role.
    """
    kinds_of = {site: _checked_kinds(subject, site, which.kinds) for site in sites}
    out: dict[Site, tuple[ConceptRows, ConceptRows]] = {}
    for kinds in dict.fromkeys(kinds_of.values()):
        alike, query = [site for site in sites if kinds_of[site] == kinds], replace(which, kinds=kinds)
        fit, held = (concept_rows(subject, concept, alike, split, query) for split in ("fit", "select"))
        out |= {site: (fit[site], held[site]) for site in alike}
    return {site: out[site] for site in sites}


def oriented(projection: Projection, fit: ConceptRows) -> Projection:
    """The same projection, with every reading larger on the concept than on the rest."""
    gap = fit.x[fit.concept].double().mean(0) - fit.x[~fit.concept].double().mean(0)
    sign = torch.where(gap @ projection.dual < 0, -1.0, 1.0).to(projection.dual)
    return Projection(projection.basis * sign, projection.dual * sign, projection.mean)


def _selectivity(held: ConceptRows, dual: Tensor, seed: int) -> tuple[Score, tuple[Score, ...]]:
    """AUROC on held-out prompts of the clearest direction, and of each; a prompt counts by its largest reading."""
    readings = held.x.double() @ dual.double()
    ids, where = held.prompt.unique(return_inverse=True)
    per_prompt = readings.new_full((len(ids), readings.shape[1]), -torch.inf)
    per_prompt = per_prompt.scatter_reduce(0, where[:, None].expand_as(readings), readings, "amax")
    labels = torch.zeros(len(ids), dtype=torch.bool)
    labels[where] = held.concept
    scores = auroc_scores(per_prompt, labels, "AUROC of the direction, select split", seed=seed)
    return max(scores, key=lambda score: score.value), scores


def as_subspace(
    subject: Subject, concept: Concept, site: Site, held: ConceptRows, projection: Projection, oblique: bool, seed: int
) -> Subspace:
    """The projection as a Subspace, judged on rows of the select split."""
    best, scores = _selectivity(held, projection.dual, seed)
    role = next((role for role in subject.roles() if site in subject.sites(role)), "")
    return Subspace(
        site,
        projection.basis.float(),
        "activation",
        best,
        concept.name,
        role,
        None if projection.mean is None else projection.mean.float(),
        projection.dual.float() if oblique else None,
        scores=scores,
        base_hash=subject.weight_hash(),
    )


def orthogonal_subspace(
    subject: Subject,
    concept: Concept,
    site: Site,
    rows: tuple[ConceptRows, ConceptRows],
    basis: Float[Tensor, "d k"],
    seed: int,
) -> Subspace:
    """The orthogonal projection along an orthonormal basis, which sets a concept's row to the mean of the others'."""
    fit, held = rows
    mean = fit.x[~fit.concept].double().mean(0)
    return as_subspace(subject, concept, site, held, oriented(Projection(basis, basis, mean), fit), False, seed)


def _checked_kinds(subject: Subject, site: Site, kinds: Sequence[str]) -> tuple[str, ...]:
    if site.side == "weight":
        raise ValueError(f"site {str(site)!r} is a weight; a direction is fitted on activations (side in or out)")
    known = [s for role in subject.roles() for s in subject.sites(role)]
    if site not in known:
        raise UnknownName("site", str(site), map(str, known))
    return tuple(kinds) if has_tokens(subject, site) else ()
