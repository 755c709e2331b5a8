"""An audit in rounds, from its questions to its report."""

from __future__ import annotations

from concept_probe.auditing.arm import Arm, guarded
from concept_probe.auditing.cache import MeasurementCache
from concept_probe.auditing.checks import refuse_changed
from concept_probe.auditing.evidence.finding import Evidence, joined_evidence
from concept_probe.auditing.places import Places
from concept_probe.auditing.plan import AuditPlan
from concept_probe.auditing.provenance import Clock
from concept_probe.auditing.questions import Questions
from concept_probe.auditing.report import report_of
from concept_probe.auditing.rounds.asking import FIRST, RoundsOfAudit
from concept_probe.auditing.rounds.schedule import ask_in_rounds
from concept_probe.auditing.sides import Sides
from concept_probe.types import Concept, EvidenceKind, Report, Subspace


def audit_in_rounds(
    plan: AuditPlan, concept: Concept, whole: Questions, arms: Sides[Arm], places: Places, found: tuple[Subspace, ...],
    cache: MeasurementCache,
) -> Report:  # fmt: skip
    """The report of an audit by a plan with rounds. `whole` are all questions of the plan.

    Raises ValueError where not even the first round can be paid for, RuntimeError where weights did not stay.
    """
    assert plan.rounds is not None  # for the type checker: callers ask for rounds
    clock = Clock()
    asking = RoundsOfAudit(plan, plan.rounds, concept, whole, arms, places, found, cache, clock)
    ceiling, most = plan.rounds.pictures, asking.most_asked(FIRST)
    if ceiling is not None and most > ceiling:
        raise ValueError(
            f"audit: {ceiling:,} answers may be asked for, and the first of {plan.rounds.looks} rounds may need {most:,}; give more, or "
            "a plan with fewer prompts, seeds or attacks, a smaller budget, or more rounds"
        )
    taken = ask_in_rounds(plan.rounds, asking, FIRST, plan.thresholds, guarded=guarded(arms))
    refuse_changed(arms)
    last = taken.last
    gathered: dict[EvidenceKind, Evidence] = {kind: joined_evidence(of.values()) for kind, of in last.gathered.items()}
    return report_of(asking.asked(last.depths, last.error), gathered, clock, taken)
