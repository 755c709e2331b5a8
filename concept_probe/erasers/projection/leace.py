"""LEACE: hide a concept from every linear reader of a site (arXiv 2306.03819)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from concept_probe.erasers.projection.fold import reads_with_bias
from concept_probe.erasers.projection.projector import Projector
from concept_probe.erasers.published import Published
from concept_probe.families import Subject
from concept_probe.find.directions.leace import leace
from concept_probe.find.rows import ConceptRows
from concept_probe.types import Concept, Site, Subspace


@dataclass(frozen=True)
class Leace(Projector):
    """Hide the concept from every linear reader of a site, with the least change (arXiv 2306.03819).

    >>> edit = Leace(how="bake")(subject, concept)
    """

    name = "leace"
    authors = Published(
        {"how": "intervention", "shrinkage": 0.0},
        read_in="memory",
        apart="the covariance is shrunk by a rule of its own",
    )
    oblique: ClassVar[bool] = True
    shrinkage: float = 0.01
    """See `find.leace`."""

    def fit(self, subject: Subject, concept: Concept, site: Site, rows: tuple[ConceptRows, ConceptRows]) -> Subspace:
        """By `find.leace`."""
        affine = self.how == "intervention" or reads_with_bias(subject, site)
        return leace(subject, concept, site, shrinkage=self.shrinkage, affine=affine, rows=rows)
