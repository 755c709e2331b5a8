"""Columns of a language model that are watched through a sweep: those that a concept's answers owe most to."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from concept_probe.bench.sweep.store import RowStore
from concept_probe.find import rank_by_effect
from concept_probe.storage import CorruptFile, check_fields, check_seal, read_json, write_sealed_json
from concept_probe.storage.schema import Number, Parsed, Table, Tuple
from concept_probe.types import Concept, Score, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject

_MEND = "columns are ranked anew"
_COLUMNS = Table(Tuple((Number(any=True), Number(any=True))), keys=Parsed(Site.parse, "the address of a site"))
RANKED_ON = 12
"""Fit prompts that rank columns, at most."""


@dataclass(frozen=True)
class WatchedColumns:
    """The columns of a subject per concept, ranked once and kept in a folder."""

    folder: Path
    store: RowStore
    """Whose claims keep two processes from ranking the same thing."""
    count: int

    def get(self, subject: CausalLMSubject, concept: Concept, key: str) -> tuple[Subspace, ...]:
        """The columns as they are in the subject, the strongest first, under the key that `keys.columns_key` gives."""
        name = f"columns-{key}"
        place = self.folder / f"{name}.json"
        with self.store.claim(name, wait=True):
            columns = _kept(place)
            if columns is None:
                ranked = rank_by_effect(subject, concept, most=RANKED_ON)
                typical = float(ranked.scores.median())
                columns = {str(s): [float(ranked.scores[i]), typical] for i, s in enumerate(ranked.sites[: self.count])}
                write_sealed_json(place, columns)
        return tuple(_column(subject, concept, Site.parse(site), *scores) for site, scores in columns.items())


def _kept(place: Path) -> dict[str, list[float]] | None:
    """What was ranked and kept, unaltered; None where nothing is, so that it is ranked (again)."""
    if not place.is_file():
        return None
    try:
        columns = check_seal(place, read_json(place, _MEND), _MEND, needed=False)
        check_fields(place, columns, _COLUMNS, _MEND)
    except CorruptFile as problem:
        warnings.warn(str(problem), stacklevel=2)
        return None
    return columns


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
