"""Columns of a language model that are watched through a sweep: those that a concept's answers owe most to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from concept_probe.bench.sweep.grid import key_digest, key_of_concept
from concept_probe.bench.sweep.store import RowStore
from concept_probe.find import rank_by_effect
from concept_probe.storage import write_text
from concept_probe.types import Concept, Score, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject

RANKED_ON = 12
"""Fit prompts that rank columns, at most."""


@dataclass(frozen=True)
class WatchedColumns:
    """The columns of a subject per concept, ranked once and kept in a folder."""

    folder: Path
    store: RowStore
    """Whose claims keep two processes from ranking the same thing."""
    count: int

    def get(self, subject: CausalLMSubject, concept: Concept, base: str) -> tuple[Subspace, ...]:
        """The columns as they are in the subject, the strongest first."""
        name = f"columns-{key_digest(base, key_of_concept(concept), self.count)}"
        place = self.folder / f"{name}.json"
        with self.store.claim(name, wait=True):
            if not place.is_file():
                ranked = rank_by_effect(subject, concept, most=RANKED_ON)
                typical = float(ranked.scores.median())
                best = {str(s): [float(ranked.scores[i]), typical] for i, s in enumerate(ranked.sites[: self.count])}
                self.folder.mkdir(parents=True, exist_ok=True)
                write_text(place, json.dumps(best))
            columns = json.loads(place.read_text(encoding="utf-8"))
        return tuple(_column(subject, concept, Site.parse(site), *scores) for site, scores in columns.items())


def _column(subject: CausalLMSubject, concept: Concept, site: Site, value: float, typical: float) -> Subspace:
    score = Score("ranked by attribution", value, value, value, 1, "", "higher", typical)
    column = subject.matrix(site).detach()[:, site.item, None].clone()
    return Subspace(site, column, "parameter", score, concept.name, "mlp_value")


def mean_cosine(subject: CausalLMSubject, columns: tuple[Subspace, ...]) -> float:
    """Mean cosine of columns as they are now to what they were; 0 for one that is zero."""
    values = []
    for one in columns:
        whole = Site(one.site.component, one.site.path, "weight")
        now, then = subject.matrix(whole).detach()[:, one.site.item or 0].double(), one.basis[:, 0].double()
        values.append(float(now @ then / (now.norm() * then.norm()).clamp_min(1e-30)))
    return sum(values) / len(values)
