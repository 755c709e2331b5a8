"""Difference of means: project out the way from other prompts to the concept's."""

from __future__ import annotations

from dataclasses import dataclass

from concept_probe.erasers.projection.projector import Projector
from concept_probe.erasers.published import Published
from concept_probe.families import Subject
from concept_probe.find.directions.means import difference_of_means
from concept_probe.find.rows import ConceptRows
from concept_probe.types import Concept, Site, Subspace


@dataclass(frozen=True)
class DifferenceOfMeans(Projector):
    """Set what lies along the concept's difference of means to the average of other prompts.

    >>> guard = DifferenceOfMeans(how="intervention", role="text_stream")(subject, concept)
    """

    name = "difference"
    authors = Published({"how": "intervention"}, read_in="memory")

    def fit(self, subject: Subject, concept: Concept, site: Site, rows: tuple[ConceptRows, ConceptRows]) -> Subspace:
        """By `find.difference_of_means`, one direction for each of `kinds`."""
        return difference_of_means(subject, concept, site, rows=rows)
