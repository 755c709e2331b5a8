"""Audit subjects whose truth is known, one row per audit, and say how often the verdict was right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from concept_probe.attacks import Budget
from concept_probe.auditing import Memory, Thresholds, audit
from concept_probe.bench.calibration.ground_truth import ERASE, Case, Subjects, cases
from concept_probe.bench.sweep.grid import key_digest
from concept_probe.bench.sweep.store import RowStore, SweepRow
from concept_probe.find import find_features, vector_candidates
from concept_probe.learn import over_text, shipped_saes
from concept_probe.testbed.concepts import emoji_concept as embedded
from concept_probe.types import Concept, Judge, Report, Sampling, Score, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

Find = Callable[["Subject", Concept], Sequence[Subspace]]


@dataclass(frozen=True)
class CalibrationPlan:
    """What every audit of a calibration asks. The thresholds hold for audits that ask about as much."""

    prompts: int = 8
    seeds: tuple[int, ...] = (0, 1)
    fit_pictures: int = 8
    sampling: Sampling = Sampling(steps=6)
    attacks: tuple[str, ...] = ("paraphrases", "embedding_inversion", "relearning")
    budget: Budget = Budget(queries=32, gradient_steps=16, examples=8)

    def __str__(self) -> str:
        return (
            f"{self.prompts} prompts per kind x {len(self.seeds)} seeds, {self.sampling.steps} denoising steps; attacks "
            f"{', '.join(self.attacks)} with {self.budget.queries} pictures and {self.budget.gradient_steps} steps each"
        )


def look_for(subject: Subject, concept: Concept) -> tuple[Subspace, ...]:
    """What the parameters and features of an audit are measured on: the best columns, and the best features."""
    ranked = vector_candidates(subject, concept, "mlp_value")[0]
    features = find_features(over_text(shipped_saes(subject.name)), subject, concept, count=8, limit=4)
    return (*ranked.take(24), *features)


@dataclass(eq=False)
class CalibrationRun:
    """A calibration with its rows in a store: finished audits are never repeated.

    >>> for row in Run(Store("calibration.jsonl")).rows():
    ...     print(row.values["truth"], row.values["verdict"])
    """

    store: RowStore
    asked: CalibrationPlan = CalibrationPlan()
    subjects: Subjects = field(default_factory=Subjects)
    find: Find = look_for
    known: Callable[[str, str], Concept] = embedded
    """(name of a concept, model) to the concept."""
    recogniser: Judge | None = None
    """Who judges pictures; None for the embedded models' own."""
    _memory: Memory = field(default_factory=Memory)
    _found: dict[str, Sequence[Subspace]] = field(default_factory=dict)

    def key(self, case: Case) -> str:
        return key_digest("calibration", asdict(case), asdict(self.asked), asdict(Thresholds()))

    def rows(self, chosen: Sequence[Case] | None = None) -> Iterator[SweepRow]:
        """Audit what has no row yet, and yield each row once it is on disk. An audit that raises is a failed row."""
        finished = self.store.rows()
        for case in tuple(cases()) if chosen is None else chosen:
            key = self.key(case)
            if key in finished:
                continue
            with self.store.claim(key) as mine:
                if not mine or key in self.store.rows():
                    continue
                row = self._row(key, case)
                self.store.append(row)
            yield row

    def _row(self, key: str, case: Case) -> SweepRow:
        start = time.perf_counter()
        try:
            values = audit_summary(case, self.asked, self._report(case))
        except Exception as error:  # any audit may fail in its own way, and none may stop the others
            seconds = time.perf_counter() - start
            return SweepRow(
                key, case.name, case.concept, "audit", 0, "failed", {}, f"{type(error).__name__}: {error}", seconds
            )
        return SweepRow(key, case.name, case.concept, "audit", 0, "done", values, "", time.perf_counter() - start)

    def _report(self, case: Case) -> Report:
        original = self.subjects.get("emoji", "as it is")
        subject = self.subjects.get(case.model, case.state)
        twin = self.subjects.get("emoji-untaught", case.control)
        concept = self.known(case.concept, case.model)
        if case.concept not in self._found:
            self._found[case.concept] = self.find(original, self.known(case.concept, "emoji"))
        asked = self.asked
        return audit(
            subject,
            ERASE[case.erase](subject, concept) if case.erase else None,
            concept,
            original=None if subject is original else original,
            twin=twin,
            recogniser=self.recogniser,
            found=self._found[case.concept],
            prompts=asked.prompts,
            seeds=asked.seeds,
            sampling=asked.sampling,
            attacks=asked.attacks,
            budget=asked.budget,
            fit_pictures=asked.fit_pictures,
            memory=self._memory,
            command="concept-probe calibrate",
        )


def audit_summary(case: Case, asked: CalibrationPlan, report: Report) -> dict[str, Any]:
    """What a row keeps of an audit, as values that JSON can hold."""
    return {
        **asdict(case),
        "asked": str(asked),
        "thresholds": asdict(Thresholds()),
        "verdict": report.verdict.name,
        "reasons": list(report.verdict.reasons),
        "residual": _kept(report.verdict.residual),
        "indices": {kind: _kept(score) for kind, score in report.indices.items()},
        "samples_needed": report.verdict.samples_needed,
    }


def _kept(score: Score | None) -> dict[str, Any] | None:
    return None if score is None else {"name": score.name, "at": [score.value, score.low, score.high], "n": score.n}


def line_of(row: SweepRow) -> str:
    """One row for people."""
    if row.status == "failed":
        return f"{row.concept}: {row.eraser}: failed: {row.error}"
    at = row.values["residual"]["at"] if row.values["residual"] else None
    shown = "no residual" if at is None else f"residual {at[0]:.2f} [{at[1]:.2f}, {at[2]:.2f}]"
    return f"{row.concept}: {row.eraser} ({row.values['truth']}): {row.values['verdict']}, {shown}, {row.seconds:.0f} s"
