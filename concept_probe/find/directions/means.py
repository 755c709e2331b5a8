"""The difference of means: what a concept's rows have that others' lack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from concept_probe.find.directions.projection import (
    DIRECTION_ROWS,
    contrast_directions,
    orthogonal_subspace,
    orthonormal,
    rows_to_fit,
)
from concept_probe.find.rows import ConceptRows, RowQuery
from concept_probe.types import Concept, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


def difference_of_means(
    subject: Subject,
    concept: Concept,
    site: Site,
    *,
    which: RowQuery = DIRECTION_ROWS,
    seed: int = 0,
    rows: tuple[ConceptRows, ConceptRows] | None = None,
) -> Subspace:
    """The span of the concept's differences of means at `site`, one per kind of token, orthonormal.

    Fitted on the fit split against neighbours, anchors and unrelated prompts; `mean` is that of the
    others, so that projecting sets a concept's row to the average of the rest. `score` is the AUROC
    of the reading on the select split. `rows`: what `rows_to_fit` has for the site, which otherwise gathers `which`.
    """
    fit, held = rows or rows_to_fit(subject, concept, [site], which)[site]
    return orthogonal_subspace(subject, concept, site, (fit, held), orthonormal(contrast_directions(fit)), seed)
