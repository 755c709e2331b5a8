"""R-LACE: project out what the best linear readers need (arXiv 2201.12091)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from concept_probe.arguments import Count
from concept_probe.erasers.projection.projector import Projector
from concept_probe.erasers.published import Published
from concept_probe.families import Subject
from concept_probe.find.directions.rlace import Game, rlace
from concept_probe.find.rows import ConceptRows
from concept_probe.types import Concept, Site, Subspace


@dataclass(frozen=True)
class Rlace(Projector):
    """Set what the best linear readers of the concept need to the average of other prompts (arXiv 2201.12091).

    >>> guard = Rlace(how="intervention", role="text_stream")(subject, concept)
    """

    name = "rlace"
    authors = Published(
        {"how": "intervention", "rank": 1},
        read_in="memory",
        apart="both sides of the game step by SGD, tens of thousands of times",
    )
    rank: Count | None = None
    """Directions taken out at each site; None: as many as readers, of which each of `kinds` has one."""
    rounds: Count = 300
    """Steps of each side of the game, see `find.rlace.Game`."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(how="intervention", rounds=20)

    def fit(self, subject: Subject, concept: Concept, site: Site, rows: tuple[ConceptRows, ConceptRows]) -> Subspace:
        """By `find.rlace`."""
        return rlace(subject, concept, site, rank=self.rank, game=Game(rounds=self.rounds), rows=rows)
