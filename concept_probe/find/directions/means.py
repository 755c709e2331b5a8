"""Directions of a concept at a site: difference of means, LEACE, and an oblique one of least disturbance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.evaluation.auroc import auroc_scores
from concept_probe.find.layout import has_tokens
from concept_probe.find.rows import Rows, concept_rows
from concept_probe.registry import UnknownName
from concept_probe.types import Concept, Sampling, Score, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

DIRECTION_KINDS = ("subject", "eos", "pad")
"""Tokens that carry a concept in a causal text encoder: its own, and those that come after."""


def contrast_directions(rows: Rows) -> Float[Tensor, "d k"]:
    """Mean of the concept's rows minus mean of the others, one column per kind of token that has both."""
    columns = []
    for kind in rows.kind.unique().tolist():
        here = rows.kind == kind
        own, other = here & rows.concept, here & ~rows.concept
        if own.any() and other.any():
            columns.append(rows.x[own].double().mean(0) - rows.x[other].double().mean(0))
    if not columns:
        raise ValueError("no kind of token has rows both of the concept and of other prompts")
    return torch.stack(columns, 1)


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


def fit_leace(
    x: Float[Tensor, "n d"],
    z: Float[Tensor, "n k"],
    *,
    affine: bool = True,
    shrinkage: float = 0.0,
    tolerance: float = 1e-5,
) -> Projection:
    """The least change of x after which no linear predictor reads z (LEACE, arXiv 2306.03819).

    r(x) = x - W⁺ P_W W (x - μ), where W = Σ_xx^{-1/2} and P_W projects onto the columns of W Σ_xz.
    With `affine` False the mean stays out and W whitens the uncentred second moment, which makes it
    the linear map of least change. `shrinkage` in 0..1 moves Σ_xx towards a multiple of the
    identity: it changes which projection is least, not what is erased. Computed in float64.
    """
    x, z = x.double(), z.double()
    if len(x) != len(z):
        raise ValueError(f"{len(x)} rows of x, {len(z)} of z")
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage is {shrinkage}; it lies in 0..1")
    mean = x.mean(0)
    centred = x - mean
    spread = centred if affine else x
    sigma = spread.mT @ spread / len(x)
    d = len(sigma)
    eye = torch.eye(d, dtype=sigma.dtype, device=sigma.device)
    sigma = (1 - shrinkage) * sigma + shrinkage * sigma.trace() / d * eye
    values, vectors = torch.linalg.eigh(sigma)
    kept = values > values[-1].clamp_min(0) * d * torch.finfo(values.dtype).eps
    root = torch.where(kept, values.clamp_min(0).sqrt(), 0)
    inverse = torch.where(kept, 1 / root.clamp_min(torch.finfo(root.dtype).tiny), 0)
    whiten, colour = (vectors * inverse) @ vectors.mT, (vectors * root) @ vectors.mT
    cross = centred.mT @ (z - z.mean(0)) / len(x)
    u = orthonormal(whiten @ cross, tolerance)
    return Projection(colour @ u, whiten @ u, mean if affine else None)


def concept_indicators(rows: Rows) -> Float[Tensor, "n k"]:
    """What LEACE must hide: per kind of token, whether the row is the concept's, centred within the kind.

    Centred so that the kind of token itself is not erased along with the concept.
    """
    columns = []
    for kind in rows.kind.unique().tolist():
        here = rows.kind == kind
        own = rows.concept & here
        if own.any() and (here & ~rows.concept).any():
            share = own.sum() / here.sum()
            columns.append(torch.where(here, rows.concept.double() - share, 0.0))
    if not columns:
        raise ValueError("no kind of token has rows both of the concept and of other prompts")
    return torch.stack(columns, 1)


def fit_oblique(directions: Float[Tensor, "d k"], others: Float[Tensor, "n d"], *, ridge: float = 1e-3) -> Projection:
    """x -> x - D Eᵀ x, where Eᵀ D = 1 and E reads as little as possible from the rows of `others`.

    E = M⁻¹ D (Dᵀ M⁻¹ D)⁻¹ with M = mean(x xᵀ) over `others` plus `ridge` of its mean diagonal.
    No mean is needed, so it can be put into a matrix without a bias.
    """
    d = directions.double()
    x = others.double()
    moment = x.mT @ x / len(x)
    moment.diagonal().add_(ridge * moment.diagonal().mean())
    solved = torch.cholesky_solve(d, torch.linalg.cholesky(moment))
    return Projection(d, torch.linalg.solve(d.mT @ solved, solved, left=False), None)


def rows_to_fit(
    subject: Subject, concept: Concept, sites: Sequence[Site], kinds: Sequence[str] = DIRECTION_KINDS,
    sampling: Sampling = Sampling(), limit: int | None = None,
) -> dict[Site, tuple[Rows, Rows]]:  # fmt: skip
    """Rows of the fit split and of the select split at activation sites, all from the same passes.

    Patches of a picture have no kinds.
    """
    checked = {site: _checked(subject, site, kinds) for site in sites}
    out: dict[Site, tuple[Rows, Rows]] = {}
    for those in dict.fromkeys(checked.values()):
        alike = [site for site in sites if checked[site] == those]
        fit, held = (
            concept_rows(subject, concept, alike, split, kinds=those, sampling=sampling, limit=limit)
            for split in ("fit", "select")
        )
        out |= {site: (fit[site], held[site]) for site in alike}
    return {site: out[site] for site in sites}


def oriented(projection: Projection, fit: Rows) -> Projection:
    """The same projection, with every reading larger on the concept than on the rest."""
    gap = fit.x[fit.concept].double().mean(0) - fit.x[~fit.concept].double().mean(0)
    sign = torch.where(gap @ projection.dual < 0, -1.0, 1.0).to(projection.dual)
    return Projection(projection.basis * sign, projection.dual * sign, projection.mean)


def _selectivity(held: Rows, dual: Tensor, seed: int) -> tuple[Score, tuple[Score, ...]]:
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
    subject: Subject, concept: Concept, site: Site, held: Rows, projection: Projection, oblique: bool, seed: int
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
    )


def _checked(subject: Subject, site: Site, kinds: Sequence[str]) -> tuple[str, ...]:
    if site.side == "weight":
        raise ValueError(f"site {str(site)!r} is a weight; a direction is fitted on activations (side in or out)")
    known = [s for role in subject.roles() for s in subject.sites(role)]
    if site not in known:
        raise UnknownName("site", str(site), map(str, known))
    return tuple(kinds) if has_tokens(subject, site) else ()


def difference_of_means(
    subject: Subject,
    concept: Concept,
    site: Site,
    *,
    kinds: Sequence[str] = DIRECTION_KINDS,
    sampling: Sampling = Sampling(),
    limit: int | None = None,
    seed: int = 0,
    rows: tuple[Rows, Rows] | None = None,
) -> Subspace:
    """The span of the concept's differences of means at `site`, one per kind of token, orthonormal.

    Fitted on the fit split against neighbours, anchors and unrelated prompts; `mean` is that of the
    others, so that projecting sets a concept's row to the average of the rest. `score` is the AUROC
    of the reading on the select split. `rows`: what `rows_to_fit` has for the site; gathered where none are given.
    """
    fit, held = rows or rows_to_fit(subject, concept, [site], kinds, sampling, limit)[site]
    basis = orthonormal(contrast_directions(fit))
    mean = fit.x[~fit.concept].double().mean(0)
    return as_subspace(subject, concept, site, held, oriented(Projection(basis, basis, mean), fit), False, seed)


def leace(
    subject: Subject,
    concept: Concept,
    site: Site,
    *,
    kinds: Sequence[str] = DIRECTION_KINDS,
    affine: bool = True,
    shrinkage: float = 0.01,
    sampling: Sampling = Sampling(),
    limit: int | None = None,
    seed: int = 0,
    rows: tuple[Rows, Rows] | None = None,
) -> Subspace:
    """The LEACE projection that hides at `site` whether a prompt is the concept's, for each kind of token.

    Fitted on the fit split; `basis` and `dual` make the oblique projection x - basis dualᵀ (x - mean).
    `affine` False gives the linear one, which can be baked into matrices without a bias.
    See `fit_leace` for the formula (arXiv 2306.03819), `difference_of_means` for `rows`.
    """
    fit, held = rows or rows_to_fit(subject, concept, [site], kinds, sampling, limit)[site]
    projection = fit_leace(fit.x, concept_indicators(fit), affine=affine, shrinkage=shrinkage)
    return as_subspace(subject, concept, site, held, oriented(projection, fit), True, seed)
