"""LEACE: the least change after which no linear reader sees the concept (arXiv 2306.03819)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.find.directions.projection import (
    DIRECTION_ROWS,
    Projection,
    as_subspace,
    oriented,
    orthonormal,
    rows_to_fit,
)
from concept_probe.find.rows import ConceptRows, RowQuery
from concept_probe.types import Concept, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


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


def concept_indicators(rows: ConceptRows) -> Float[Tensor, "n k"]:
    """What LEACE must hide: per kind of token, whether the row is the concept's, centred within the kind; of several
    concepts at once, for each of them, among its own rows and those of none.

    Centred so that the kind of token itself is not erased along with the concept.
    """
    columns = []
    for own, others in rows.both_sides():
        here = own | others
        columns.append(torch.where(here, own.double() - own.sum() / here.sum(), 0.0))
    return torch.stack(columns, 1)


def leace(
    subject: Subject,
    concept: Concept,
    site: Site,
    *,
    affine: bool = True,
    shrinkage: float = 0.01,
    which: RowQuery = DIRECTION_ROWS,
    seed: int = 0,
    rows: tuple[ConceptRows, ConceptRows] | None = None,
) -> Subspace:
    """The LEACE projection that hides at `site` whether a prompt is the concept's, for each kind of token.

    Fitted on the fit split; `basis` and `dual` make the oblique projection x - basis dualᵀ (x - mean).
    `affine` False gives the linear one, which can be baked into matrices without a bias.
    See `fit_leace` for the formula, `difference_of_means` for `which` and `rows`.
    """
    fit, held = rows or rows_to_fit(subject, concept, [site], which)[site]
    projection = fit_leace(fit.x, concept_indicators(fit), affine=affine, shrinkage=shrinkage)
    return as_subspace(subject, concept, site, held, oriented(projection, fit), True, seed)
