"""RepIt: project out the part of the difference of means that other concepts don't share (arXiv 2509.13281)."""

from __future__ import annotations

from dataclasses import dataclass

from concept_probe.erasers.projection.projector import Projector
from concept_probe.erasers.published import Published
from concept_probe.families import Subject
from concept_probe.find.directions.repit import repit
from concept_probe.find.rows import ConceptRows
from concept_probe.types import Concept, Site, Subspace


@dataclass(frozen=True)
class Repit(Projector):
    """Set what lies along the concept's isolated difference of means to the average of other prompts
    (arXiv 2509.13281).

    >>> guard = Repit(how="intervention", role="text_stream")(subject, concept)
    """

    name = "repit"
    authors = Published(read_in="nowhere")
    share: float = 0.75
    """Of the direction's energy in the span of other concepts' directions, how much is left out of it, 0..1."""

    def fit(self, subject: Subject, concept: Concept, site: Site, rows: tuple[ConceptRows, ConceptRows]) -> Subspace:
        """By `find.repit`, one direction for each of `kinds`."""
        return repit(subject, concept, site, share=self.share, rows=rows)
