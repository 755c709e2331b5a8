"""Audit subjects whose truth is known, one row per audit, and say how often the verdict was right."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from concept_probe.attacks import STANDARD, Budget
from concept_probe.auditing import Auditor, AuditPlan, AuditRounds, MeasurementCache
from concept_probe.auditing.verdict import RULE
from concept_probe.bench.calibration.ground_truth import ERASE, Case, Subjects, cases
from concept_probe.bench.sweep.keys import EDITIONS, short_digest, with_rest
from concept_probe.bench.sweep.store import RowStore, SweepRow
from concept_probe.content import digest_of
from concept_probe.detect import judge_for
from concept_probe.find import RowQuery, find_features, vector_candidates
from concept_probe.learn import over_text, shipped_saes
from concept_probe.testbed.concepts import emoji_concept as embedded
from concept_probe.types import Concept, Judge, Report, Sampling, Score, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

Find = Callable[["Subject", Concept], Sequence[Subspace]]


CALIBRATION_PLAN = AuditPlan(
    prompts=8,
    fit_images=8,
    sampling=Sampling(steps=6),
    attacks=STANDARD,
    budget=Budget(queries=32, gradient_steps=16, examples=8),
)
"""What every audit of a calibration asks. The thresholds hold for audits that ask about as much."""
CALIBRATION_IN_ROUNDS = replace(
    CALIBRATION_PLAN, prompts=24, rounds=AuditRounds(looks=3), budget=replace(CALIBRATION_PLAN.budget, queries=48)
)
"""The same of audits in rounds: the first asks as many prompts, and what is in doubt may get three times as many."""


def what_is_asked(plan: AuditPlan) -> str:
    """For people, and in every row: rows of different plans are not put together."""
    most, rounds = ("", "") if plan.rounds is None else ("at most ", f"; in at most {plan.rounds.looks} rounds")
    return (
        f"{most}{plan.prompts} prompts per kind x {len(plan.seeds)} seeds, {plan.sampling.steps} denoising steps; attacks "
        f"{', '.join(_names(plan))} with {most}{plan.budget.queries} pictures and {plan.budget.gradient_steps} steps each{rounds}"
    )


def _names(plan: AuditPlan) -> list[str]:
    return [a if isinstance(a, str) else a.name for a in plan.attacks or ()]


def look_for(subject: Subject, concept: Concept) -> tuple[Subspace, ...]:
    """What the parameters and features of an audit are measured on: the best columns, and the best features."""
    ranked = next(vector_candidates(subject, concept, "mlp_value"))
    features = find_features(over_text(shipped_saes(subject.name)), subject, concept, count=8, which=RowQuery(limit=4))
    return (*ranked.take(24), *features)


@dataclass(eq=False)
class CalibrationRun:
    """A calibration with its rows in a store: finished audits are never repeated.

    >>> for row in CalibrationRun(RowStore("calibration.jsonl")).rows():
    ...     print(row.values["truth"], row.values["verdict"])
    """

    store: RowStore
    plan: AuditPlan = CALIBRATION_PLAN
    subjects: Subjects = field(default_factory=Subjects)
    find: Find = look_for
    known: Callable[[str, str], Concept] | None = None
    """(name of a concept, model) to the concept; None for those of the embedded models, in rounds with more sentences."""
    recogniser: Judge | None = None
    """Who judges pictures; None for the embedded models' own."""
    _cache: MeasurementCache = field(default_factory=MeasurementCache)
    _found: dict[str, Sequence[Subspace]] = field(default_factory=dict)

    def key(self, case: Case) -> str:
        """Names an audit in the store by what is asked of whom, and by all that decides its numbers."""
        plan, usual = self.plan, AuditPlan()
        asked = {
            "prompts": plan.prompts,
            "seeds": plan.seeds,
            "fit_pictures": plan.fit_images,
            "sampling": plan.sampling.options(),
            "attacks": _names(plan),
            "budget": asdict(plan.budget),
        }
        rest = ("styles", "resamples", "seed")
        asked |= {name: getattr(plan, name) for name in rest if getattr(plan, name) != getattr(usual, name)}
        first = short_digest("calibration", RULE, asdict(case), asked, asdict(plan.thresholds))
        concepts = [self._concept(case.concept, model) for model in dict.fromkeys((case.model, "emoji"))]
        judge = self.recogniser or judge_for(concepts[0])
        rest = digest_of(EDITIONS["audit"], plan, concepts, judge, self.find, self.subjects)
        return with_rest(first, rest)

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

    def _concept(self, name: str, model: str) -> Concept:
        known = self.known or functools.partial(embedded, more=self.plan.rounds is not None)
        return known(name, model)

    def _row(self, key: str, case: Case) -> SweepRow:
        start = time.perf_counter()
        try:
            values = audit_summary(case, self.plan, self._report(case))
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
        concept = self._concept(case.concept, case.model)
        if case.concept not in self._found:
            self._found[case.concept] = self.find(original, self._concept(case.concept, "emoji"))
        return Auditor(self.plan, self._cache)(
            subject,
            ERASE[case.erase](subject, concept) if case.erase else None,
            concept,
            original=None if subject is original else original,
            twin=twin,
            recogniser=self.recogniser,
            found=self._found[case.concept],
        )


def audit_summary(case: Case, plan: AuditPlan, report: Report) -> dict[str, Any]:
    """What a row keeps of an audit, as values that JSON can hold."""
    return {
        **asdict(case),
        "asked": what_is_asked(plan),
        "thresholds": asdict(plan.thresholds),
        "verdict": report.verdict.name,
        "reasons": list(report.verdict.reasons),
        "residual": _kept(report.verdict.residual),
        "indices": {kind: _kept(score) for kind, score in report.indices.items()},
        "samples_needed": report.verdict.samples_needed,
        **_cost(report),
    }


def _cost(report: Report) -> dict[str, int]:
    """How many test answers of all arms it looked at, and in how many rounds."""
    seen = report.observed
    return {} if seen is None or not seen.rounds else {"answers": len(seen.asked), "rounds": len(seen.rounds)}


def _kept(score: Score | None) -> dict[str, Any] | None:
    return None if score is None else {"name": score.name, "at": [score.value, score.low, score.high], "n": score.n}


def line_of(row: SweepRow) -> str:
    """One row for people."""
    if row.status == "failed":
        return f"{row.concept}: {row.eraser}: failed: {row.error}"
    at = row.values["residual"]["at"] if row.values["residual"] else None
    shown = "no residual" if at is None else f"residual {at[0]:.2f} [{at[1]:.2f}, {at[2]:.2f}]"
    return f"{row.concept}: {row.eraser} ({row.values['truth']}): {row.values['verdict']}, {shown}, {row.seconds:.0f} s"
