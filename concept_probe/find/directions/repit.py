"""RepIt: the concept's difference of means without what other concepts' differences share with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.find.directions.projection import (
    DIRECTION_ROWS,
    orthogonal_subspace,
    orthonormal,
    rows_to_fit,
)
from concept_probe.find.rows import ConceptRows, RowQuery
from concept_probe.types import Concept, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


def isolate(
    target: Float[Tensor, "d"], others: Float[Tensor, "d m"], *, share: float = 0.75, ridge: float = 1e-4
) -> Float[Tensor, "d"]:
    """`target` without a `share` of its energy in the span of `others` (RepIt, arXiv 2509.13281).

    The others are weighted by the inverse of their lengths, R; C = R Rᵀ / m + λ 1 = L Lᵀ, with λ `ridge` times the mean
    square of R's entries; Q is an orthonormal basis of the columns of L⁻¹ R. The result is
    L (1 - α Q Qᵀ) L⁻¹ target with α = 1 - √(1 - share). Others of length 0 count for nothing; where there are none,
    the target comes back as it is. Float64. Raises ValueError for a share outside 0..1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; it lies in 0..1")
    v, r = target.double(), others.double()
    lengths = torch.linalg.vector_norm(r, dim=0)
    r, lengths = r[:, lengths > 0], lengths[lengths > 0]
    if not len(lengths):
        return v
    weights = 1 / lengths
    r = r * (weights / weights.sum())
    eye = torch.eye(len(v), dtype=r.dtype, device=r.device)
    root = torch.linalg.cholesky(r @ r.mT / r.shape[1] + ridge * r.square().mean() * eye)
    white = torch.linalg.solve_triangular(root, torch.cat([v[:, None], r], 1), upper=False)
    q = orthonormal(white[:, 1:])
    kept = white[:, 0] - (1 - (1 - share) ** 0.5) * (q @ (q.mT @ white[:, 0]))
    return root @ kept


def isolated_directions(rows: ConceptRows, *, share: float = 0.75, ridge: float = 1e-4) -> Float[Tensor, "d k"]:
    """One column per kind of token that has both sides: the concept's difference of means, isolated from the others'.

    All differences are those to the mean of all other prompts' rows of that kind. What the other prompts show, by
    their labels, are the other concepts.
    """
    columns = []
    for own, other in rows.both_sides():
        base = rows.x[other].double().mean(0)
        shown = rows.about[other].unique().tolist()
        theirs = torch.stack([rows.x[other & (rows.about == one)].double().mean(0) - base for one in shown], 1)
        columns.append(isolate(rows.x[own].double().mean(0) - base, theirs, share=share, ridge=ridge))
    return torch.stack(columns, 1)


def repit(
    subject: Subject,
    concept: Concept,
    site: Site,
    *,
    share: float = 0.75,
    ridge: float = 1e-4,
    which: RowQuery = DIRECTION_ROWS,
    seed: int = 0,
    rows: tuple[ConceptRows, ConceptRows] | None = None,
) -> Subspace:
    """The span of the concept's isolated differences of means at `site`, orthonormal (RepIt, arXiv 2509.13281).

    One direction per kind of token, fitted on the fit split; `mean` is that of the other prompts, as for
    `difference_of_means`. `score` is the AUROC of the clearest direction on the select split, with shuffled labels
    as control. See `isolate` for the formula, `share` and `ridge`, `difference_of_means` for `which` and `rows`.
    """
    fit, held = rows or rows_to_fit(subject, concept, [site], which)[site]
    basis = orthonormal(isolated_directions(fit, share=share, ridge=ridge))
    return orthogonal_subspace(subject, concept, site, (fit, held), basis, seed)
