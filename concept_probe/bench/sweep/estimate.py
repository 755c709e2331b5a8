"""What a sweep will take, before it takes it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from concept_probe.bench.sweep.grid import CONTROLS
from concept_probe.bench.sweep.sweep import Sweep
from concept_probe.types import Prompt, Query

LOOKED_AT = 8
"""Answers that are made to see how long one takes, at most."""


@dataclass(frozen=True)
class SweepEstimate:
    """The cells of a sweep that have no row yet, and what they ask for."""

    cells: int
    fits: int
    """Erasers that are fitted, once for each concept, at most; how long that takes is not known before."""
    answers: int
    """Pictures, or texts, that cells and their attacks may make; those of a fit come on top."""
    seconds: float
    """How long these answers take one process, by a few that were made for the measure."""
    what: str
    """What answers are."""

    def __str__(self) -> str:
        if not self.cells:
            return "every cell has its row"
        hours = self.seconds / 3600
        long = (
            f"{hours:.1f} h"
            if hours >= 1
            else f"{self.seconds / 60:.0f} min"
            if self.seconds >= 90
            else f"{self.seconds:.0f} s"
        )
        return (
            f"{self.cells:,} cells to measure: at most {self.answers:,} {self.what}, about {long} in one process, and {self.fits} "
            "fits, which choose and learn"
        )


def estimate_sweep(sweep: Sweep) -> SweepEstimate:
    """Count what is missing, and make a few answers to see how long one takes."""
    finished, grid = sweep.store.rows(), sweep.grid
    missing = [cell for key, cell in sweep.keys().items() if key not in finished]
    fits = {(cell.method, cell.concept.name) for cell in missing if cell.method not in CONTROLS}
    plain = sum(grid.settings.counts.values())
    answers = 0
    for cell in missing:
        budget = grid.settings.budget if cell.attack is None else cell.attack.budget or grid.settings.budget
        answers += plain if cell.attack is None else 2 * budget.queries  # the control spends as much
    return SweepEstimate(
        len(missing), len(fits), answers, answers * _each(sweep) if missing else 0.0, sweep.subject.answers
    )


def _each(sweep: Sweep) -> float:
    """Seconds for an answer of the untouched subject."""
    sampling = sweep.grid.settings.sampling
    count = min(LOOKED_AT, sampling.batch)
    prompt = next((p for c in sweep.grid.concepts for p in c.prompts("target", "test")), Prompt("a"))
    start = time.perf_counter()
    sweep.subject.generate([Query(prompt, seed) for seed in range(count)], sampling)
    return (time.perf_counter() - start) / count
