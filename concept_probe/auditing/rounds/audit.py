"""An audit in rounds, from its questions to its report."""

from __future__ import annotations

import warnings

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
from concept_probe.evaluation.looks import fewest_without_a_hit
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
    _warn_of_few(plan.rounds.errors[-1], plan.thresholds.residual, whole)
    taken = ask_in_rounds(plan.rounds, asking, FIRST, plan.thresholds, guarded=guarded(arms))
    refuse_changed(arms)
    last = taken.last
    gathered: dict[EvidenceKind, Evidence] = {kind: joined_evidence(of.values()) for kind, of in last.gathered.items()}
    return report_of(asking.asked(last.depths, last.error), gathered, clock, taken)


def _warn_of_few(error: float, residual: float, whole: Questions) -> None:
    """Careful intervals take the answers to a prompt for one: of too few prompts they never say that nothing is left."""
    fewest, there = fewest_without_a_hit(error, residual), len(whole.prompts("target"))
    if there < fewest:
        warnings.warn(
            f"audit of {whole.concept.name!r} in rounds: {there} test prompts name it, and at least {fewest} are needed before "
            "'erased' can be said of a model that is not its twin to the bit; give more of them (`prompts`, or in the concept), or "
            "ask at once",
            stacklevel=2,
        )
