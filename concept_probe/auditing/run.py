"""The audit: what is left of a concept, against a control, with an interval and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from concept_probe.auditing.arm import arms_of
from concept_probe.auditing.cache import MeasurementCache
from concept_probe.auditing.checks import judge_of, refuse_changed, refuse_used, refuse_without_control, warn_of_another
from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence import EVIDENCE, Evidence
from concept_probe.auditing.evidence.finding import joined_evidence
from concept_probe.auditing.observe import observe_sides
from concept_probe.auditing.places import places_in
from concept_probe.auditing.plan import AuditPlan
from concept_probe.auditing.provenance import Clock
from concept_probe.auditing.questions import Questions
from concept_probe.auditing.report import report_of
from concept_probe.auditing.rounds.audit import audit_in_rounds
from concept_probe.families import DiffusionSubject
from concept_probe.types import Concept, Erasure, EvidenceKind, Judge, Report, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Auditor:
    """Audits by one plan, and remembers what it measured: of several audits of one model, the model as it was and the
    twin are measured once.

    >>> auditor = Auditor(AuditPlan(prompts=6))
    >>> reports = [auditor(subject, edit, concept, twin="emoji-untaught") for edit in edits]
    """

    plan: AuditPlan = AuditPlan()
    cache: MeasurementCache = field(default_factory=MeasurementCache)
    """Auditors of different plans may share one."""

    def __call__(
        self, subject: Subject, erasure: Erasure | None, concept: Concept, *, original: Subject | None = None,
        twin: Subject | str | None = None, recogniser: Judge | str | None = None, found: Sequence[Subspace] = (),
    ) -> Report:  # fmt: skip
        """As `audit`."""
        refuse_used(concept, erasure)
        warn_of_another(concept, erasure)
        label, judge = judge_of(concept, recogniser, subject)
        if isinstance(twin, str):
            from concept_probe.families import load  # only a name needs the loader

            twin = load(twin)
        clock, plan = Clock(), self.plan
        arms = arms_of(subject, erasure, original, twin)
        before = arms.before.subject
        questions = Questions.of(plan, concept, label, judge, before.answers)
        refuse_without_control(questions, twin is not None)
        passes = before.passes(plan.sampling) if isinstance(before, DiffusionSubject) else plan.sampling.steps
        places = places_in(before, passes, found)
        for arm in arms:
            for site in (*places.text, *places.inner):
                arm.subject.module(site)  # raises for a model of another layout, before anything is asked
        if plan.rounds is not None:
            return audit_in_rounds(plan, concept, questions, arms, places, tuple(found), self.cache)
        with clock.stage("answers"):
            seen = observe_sides(arms, questions, places, self.cache)
        context = Context(plan, questions, arms, seen, places, tuple(found), self.cache)
        gathered: dict[EvidenceKind, Evidence] = {}
        for kind, measures in EVIDENCE.items():
            with clock.stage(kind):
                gathered[kind] = joined_evidence([measure(context) for measure in measures])
        refuse_changed(arms)
        return report_of(context, gathered, clock)


def audit(
    subject: Subject, erasure: Erasure | None, concept: Concept, *, original: Subject | None = None,
    twin: Subject | str | None = None, recogniser: Judge | str | None = None, found: Sequence[Subspace] = (),
    plan: AuditPlan = AuditPlan(),
) -> Report:  # fmt: skip
    """Five kinds of evidence on what is left of `concept` in `subject` with `erasure` on, and a verdict.

    >>> report = audit(subject, edit, concept, twin="emoji-untaught", found=found)
    >>> report.verdict.name
    'suppressed'

    `original` is the subject as it was before, where that is another model than `subject` without the
    erasure: a released checkpoint is audited with `erasure` None and `original` given. `twin` is a model
    by the same recipe that was never taught the concept (or its name for `load`); without one, the
    report says what stands in for it. `recogniser` defaults to the one that was made for the subject's pictures and
    has the concept's label, and for a concept with answers, which language models are asked for, to those answers; a
    name is looked up as `detect.recogniser` does.
    `found` holds the concept vectors and features to look for. `plan` says how much is asked.

    The erasure is on in everything that is measured of it. No weight is changed afterwards; that is checked.
    Raises UsedPrompts (a ValueError) for test prompts that were fitted or selected on, LookupError where no recogniser
    belongs to the subject and none is given, ValueError for one that can't see the concept and for a concept without
    target prompts to test, or without a twin and without other things to test, RuntimeError where an attack or an erasure did not clean up.
    """
    return Auditor(plan)(subject, erasure, concept, original=original, twin=twin, recogniser=recogniser, found=found)
