"""From evidence to the report of an audit: verdict, everything that was found, and where it is from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace

from concept_probe.auditing.calibration import covered, outcome
from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence.finding import Evidence, joined_evidence
from concept_probe.auditing.provenance import Clock, versions
from concept_probe.auditing.rounds.doubt import evidence_of
from concept_probe.auditing.rounds.schedule import RoundsTaken
from concept_probe.auditing.verdict import decide, largest_of_each
from concept_probe.erasers.erasure.provenance import shown_name
from concept_probe.evaluation.looks import draws_for
from concept_probe.families import Subject
from concept_probe.types import AskedAnswer, EvidenceKind, Observed, ObservedRound, Picture, Report, Sampling, Written


def report_of(
    context: Context, gathered: Mapping[EvidenceKind, Evidence], clock: Clock, taken: RoundsTaken | None = None
) -> Report:
    """The report of an audit whose evidence was `gathered`, in the rounds that were `taken` where there were some."""
    evidence = joined_evidence(gathered.values())
    thresholds, before = context.plan.thresholds, context.arms.before.subject
    others = {kind: [i for i in of.indices if i is not evidence.direct] for kind, of in gathered.items()}
    calibrated = context.has_twin and covered(before, thresholds, rounds=taken is not None)
    verdict = (
        decide(evidence.direct, others, evidence.losses, thresholds, guarded=context.guarded, error=context.error)
        if taken is None
        else taken.verdict
    )
    return Report(
        subject=context.arms.after.subject.name,
        concept=context.questions.concept.name,
        erasure=_erasure(context),
        verdict=replace(verdict, calibrated=calibrated),
        findings=evidence.findings,
        indices=largest_of_each(others, evidence.direct, context.error),
        curves=evidence.curves,
        traces=evidence.traces,
        pictures=(*_pictures(context), *evidence.pictures),
        writings=_writings(context),
        not_measured=_not_measured(context, evidence, calibrated),
        provenance=_provenance(
            context, clock, outcome(taken is not None) if calibrated else "none for audits like this one"
        )
        | ({} if taken is None else as_they_went(taken)),
        observed=_observed(context, taken),
    )


def _observed(context: Context, taken: RoundsTaken | None) -> Observed:
    """Every answer that counts, and the rules that numbers and verdict were made by."""
    asked = tuple(
        AskedAnswer(side, kind, p.text, p.fact or "", p.label or "", t.query.seed, t.seen, t.probability)
        for side, seen in context.seen.items()
        for kind, rows in seen.trials.items()
        for row in rows
        for t in row
        for p in (t.query.prompt,)
    )
    plan = context.plan
    observed = Observed(
        asked, plan.resamples, plan.seed, asdict(plan.thresholds), context.guarded, context.questions.label
    )
    if taken is None:
        return observed
    rounds = tuple(
        ObservedRound(r.number, r.error, max(plan.resamples, draws_for(r.error)), evidence_of(r.gathered).findings, r.verdict,
                      r.doubt, r.answers)
        for r in taken.rounds
    )  # fmt: skip
    return replace(
        observed, error=context.error, careful=context.careful, rounds=rounds, looks=taken.looks, stopped=taken.stopped
    )


def as_they_went(taken: RoundsTaken) -> dict[str, str]:
    """The rounds as they went, a line each, and why there was no further one."""
    out: dict[str, str] = {}
    before = 0
    for r in taken.rounds:
        doubt = f"in doubt: {', '.join(r.doubt)}" if r.doubt else "nothing in doubt"
        new, before = r.answers - before, r.answers
        out[f"round {r.number} of {taken.looks}"] = (
            f"{new:,} answers, intervals of {_level(r.error)}: {r.verdict.name}; {doubt}"
        )
    ended = taken.stopped or ("the last look" if taken.verdict.name == "undecided" else "what decides is decided")
    said = f"{len(taken.rounds)} of {taken.looks}, {before:,} answers; ended since {ended}"
    return out | {"rounds": said, "intervals": _level(taken.last.error)}


def _level(error: float) -> str:
    return f"{100 * (1 - error):.4g} %"


def _erasure(context: Context) -> str:
    """What was audited: an erasure, a checkpoint, or the subject as it is."""
    arms = context.arms
    if arms.after.erasure is not None:
        return shown_name(arms.after.erasure)
    if arms.after.subject is arms.before.subject:
        return "none"
    return f"the checkpoint itself, from {arms.before.subject.name}"


def _pictures(context: Context) -> tuple[Picture, ...]:
    """Under the arm's own name: arms in the same state share one observation."""
    return tuple(replace(p, name=side) for side, seen in context.seen.items() for p in seen.pictures)


def _writings(context: Context) -> tuple[Written, ...]:
    return tuple(replace(w, name=side) for side, seen in context.seen.items() for w in seen.writings)


def _not_measured(context: Context, evidence: Evidence, calibrated: bool) -> tuple[str, ...]:
    out = list(evidence.not_measured)
    if not context.has_twin:
        out.insert(
            0,
            "A never-taught twin: none was given, so never-taught values come from the recogniser's mistakes on "
            "other concepts, from a made-up concept, and from vectors that were not found.",
        )
    if not calibrated:
        out.append(
            "Calibration of the thresholds for this model, or for audits without a twin or with these thresholds: the "
            "verdict is uncalibrated."
        )
    return tuple(out)


def _drawn(sampling: Sampling, subject: Subject) -> str:
    """How answers are made; of pictures in another size than the pipeline's own, that too."""
    size = subject.conventions().get("picture_size")
    return str(sampling) + (f", pictures of {size[0]} x {size[1]} pixels" if size else "")


def _provenance(context: Context, clock: Clock, calibration: str) -> dict[str, str]:
    plan, asked, erasure = context.plan, context.questions, context.arms.after.erasure
    out = {f"weights {side}": f"{arm.subject.name} sha256 {arm.hash}" for side, arm in context.arms.items()}
    if erasure is not None:
        out["erasure"] = json.dumps(erasure.describe(), default=str, ensure_ascii=False)
    attacks = [a if isinstance(a, str) else a.name for a in plan.attacks_on(context.arms.after.subject)]
    out |= {
        "recogniser": f"{asked.recogniser.name} {asked.recogniser.version}",
        "seeds of answers": ", ".join(map(str, asked.seeds)),
        "bootstrap": f"seed {plan.seed}, {plan.resamples} resamples",
        "sampling": _drawn(plan.sampling, context.arms.after.subject),
        "asked": f"{len(asked.tests())} test prompts and {sum(map(len, asked.fits()))} fit prompts per arm",
        "attacks": ", ".join(attacks) or "none",
        "budget": str(plan.budget),
        "thresholds": str(plan.thresholds),
        "calibration": calibration,
        "versions": ", ".join(f"{k} {v}" for k, v in versions().items()),
        "command": "audit(), called from Python",
    }
    return out | {f"seconds: {stage}": f"{s:.1f}" for stage, s in clock.seconds.items()}
