"""The audit: what is left of a concept, against a control, with an interval and a verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from concept_probe import detect
from concept_probe.attacks import ATTACKS, Attack, Budget, label_of
from concept_probe.auditing.arm import Arm, Erasure, Memory, Plan, arm, thinned
from concept_probe.auditing.calibration import covered, outcome
from concept_probe.auditing.checks import refuse_unseen, refuse_used
from concept_probe.auditing.evidence.behaviour import Evidence, Views, behaviour
from concept_probe.auditing.evidence.depth import depth
from concept_probe.auditing.evidence.features import features
from concept_probe.auditing.evidence.fluency import fluency
from concept_probe.auditing.evidence.likelihood import likelihood
from concept_probe.auditing.evidence.parameters import parameters
from concept_probe.auditing.evidence.patching import restored
from concept_probe.auditing.evidence.recovery import instances, recover
from concept_probe.auditing.evidence.traces import places, probes
from concept_probe.auditing.observe import Observation, Places, observe
from concept_probe.auditing.provenance import Clock, command_line, versions
from concept_probe.auditing.verdict import Thresholds, decide, per_evidence
from concept_probe.evaluation.bayesian import BayesianBootstrap
from concept_probe.families.progress import bars
from concept_probe.registry import look_up
from concept_probe.types import Concept, Judge, Report, Sampling, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


def audit(
    subject: Subject,
    erasure: Erasure | None,
    concept: Concept,
    *,
    original: Subject | None = None,
    twin: Subject | str | None = None,
    recogniser: Judge | str | None = None,
    found: Sequence[Subspace] = (),
    styles: Sequence[str] = (),
    prompts: int = 12,
    seeds: Sequence[int] = (0, 1),
    sampling: Sampling = Sampling(),
    attacks: Sequence[str | Attack] = ("paraphrases", "embedding_inversion", "relearning"),
    budget: Budget = Budget(),
    fit_pictures: int = 16,
    thresholds: Thresholds = Thresholds(),
    resamples: int = 2000,
    seed: int = 0,
    memory: Memory | None = None,
    command: str | None = None,
) -> Report:
    """Five kinds of evidence on what is left of `concept` in `subject` with `erasure` on, and a verdict.

    >>> report = audit(subject, edit, concept, twin="emoji-untaught", found=found)
    >>> report.verdict.name
    'suppressed'

    `original` is the subject as it was before, where that is another model than `subject` without the
    erasure: a released checkpoint is audited with `erasure` None and `original` given. `twin` is a model
    by the same recipe that was never taught the concept (or its name for `load`); without one, the
    report says what stands in for it. `recogniser` defaults to the first that has the concept's label, and for a
    concept with answers, which language models are asked for, to those answers.
    `found` holds the concept vectors and features to look for.

    What is asked: at most `prompts` test prompts per kind times `seeds`, and `fit_pictures` a side to train
    probes in the denoiser; every attack spends at most `budget`. These shrink the cost. `memory` shares
    what was measured of the subject before and the twin between audits. `seed` is that of every
    bootstrap draw.

    The erasure is on in everything that is measured of it. No weight is changed afterwards; that is checked.
    Raises UsedPrompts (a ValueError) for test prompts that were fitted or selected on, ValueError for a
    recogniser that can't see the concept.
    """
    label = label_of(concept)
    refuse_used(concept, erasure)
    looks = recogniser if recogniser is not None else detect.judge_for(concept)
    looks = detect.recogniser(looks) if isinstance(looks, str) else looks
    refuse_unseen(label, looks)
    if not concept.prompts("target", "test"):
        raise ValueError(f"audit of {concept.name!r}: the concept has no target prompts in its test split")
    if prompts < 1 or not seeds or resamples < 100:
        raise ValueError(
            f"an audit needs prompts >= 1, a seed and resamples >= 100; found {prompts}, {list(seeds)}, {resamples}"
        )
    if isinstance(twin, str):
        from concept_probe.families import load  # only a name needs the loader

        twin = load(twin)
    for attack in attacks:
        if isinstance(attack, str):
            look_up(ATTACKS, attack, "attack", "concept-probe info attacks")
    clock, memory = Clock(), Memory() if memory is None else memory
    plan = Plan(thinned(concept, prompts), label, looks, tuple(seeds), sampling, fit_pictures)
    if plan.reads and sampling.temperature == 0:
        plan = replace(plan, seeds=plan.seeds[:1])  # without chance every seed gives the same text
    base = original if original is not None else subject
    before, after, control = _arms(subject, erasure, base, twin)
    spots = places(base, sampling.steps)
    watched = tuple(f for f in found if f.codec is not None and f.features)
    spots = Places(spots.text, spots.inner, spots.steps, watched)
    with clock.stage("answers"):
        views = _look(plan, spots, (before, after, control), memory, BayesianBootstrap(resamples, seed), thresholds)
    said, direct, losses = behaviour(views, styles)
    weighed, spoken = likelihood(views, before), fluency(views, before)
    with clock.stage("representation"):
        read, traces = probes(views, before, spots)
        carried, trace = restored(views, (before, after, control), spots, memory)
        cut, layers = depth(views, (before, after, control))
    with clock.stage("parameters"):
        held = parameters(views, (before, after, control), found)
    fired = features(views, spots)
    with clock.stage("recovery"):
        chosen = instances(views, attacks)
        regained, curves, shown, _ = recover(views, after, control, chosen, budget, memory)
    _refuse_changed([before, after, *([control] if control else [])])

    parts = {
        "behaviour": (said, weighed, spoken),
        "representation": (read, carried, cut),
        "parameters": (held,),
        "features": (fired,),
        "recovery": (regained,),
    }
    evidence = [e for of in parts.values() for e in of]
    others = [s for e in evidence for s in e.indices if s is not direct]
    calibrated = control is not None and covered(base.name, thresholds)
    return Report(
        subject=subject.name,
        concept=concept.name,
        erasure=_name(erasure, original),
        verdict=replace(decide(direct, others, losses, thresholds), calibrated=calibrated),
        findings=tuple(f for e in evidence for f in e.findings),
        indices=per_evidence({kind: [s for e in of for s in e.indices] for kind, of in parts.items()}),
        curves=tuple(curves),
        traces=(*traces, *(t for t in (trace, layers) if t is not None)),
        pictures=(
            *views.before.pictures,
            *_renamed(views.after, "after"),
            *(_renamed(views.control, "control") if views.control else ()),
            *shown,
        ),
        writings=tuple(
            replace(w, name=name)
            for name, seen in (("before", views.before), ("after", views.after), ("control", views.control))
            if seen is not None
            for w in seen.writings
        ),
        not_measured=_left_out(evidence, control, calibrated),
        provenance=_provenance(
            plan, (before, after, control), erasure, seed, resamples, budget, chosen, thresholds, clock, command
        ),
    )


def _arms(
    subject: Subject, erasure: Erasure | None, base: Subject, twin: Subject | None
) -> tuple[Arm, Arm, Arm | None]:
    return (
        arm("before", base, None),
        arm("after", subject, erasure),
        None if twin is None else arm("control", twin, None),
    )


def _look(
    plan: Plan,
    spots: Places,
    arms: tuple[Arm, Arm, Arm | None],
    memory: Memory,
    bootstrap: BayesianBootstrap,
    thresholds: Thresholds,
) -> Views:
    """Observe every arm; arms in the same state are observed once."""
    what = f"observation {spots!r} {[(str(f.site), f.features, id(f.codec)) for f in spots.features]}"
    with bars() as bar:

        def see(of: Arm) -> Observation:
            return memory.get(plan.key(of, what), lambda: observe(of, plan, spots, bar))

        before, after, control = (None if a is None else see(a) for a in arms)
    assert before is not None and after is not None  # only the control may be missing
    return Views(plan, before, after, control, bootstrap, thresholds)


def _refuse_changed(arms: Sequence[Arm]) -> None:
    """Raise RuntimeError if a subject does not hold the bytes that it held when the audit began, its erasure on."""
    for held in arms:
        with held.on():
            now = held.subject.weight_hash()
        if now != held.hash:
            raise RuntimeError(
                f"the audit changed the weights of {held.subject.name!r} ({held.name}): {held.hash} became {now}; its "
                "numbers can't be trusted. An attack or an erasure did not clean up"
            )


def _name(erasure: Erasure | None, original: Subject | None) -> str:
    if erasure is not None:
        return erasure.name
    return "none" if original is None else f"the checkpoint itself, from {original.name}"


def _renamed(seen: Observation, name: str) -> tuple:
    """Pictures under the arm's own name: arms in the same state share one observation."""
    return tuple(replace(p, name=name) for p in seen.pictures)


def _left_out(evidence: Sequence[Evidence], control: Arm | None, calibrated: bool) -> tuple[str, ...]:
    out = [s for e in evidence for s in e.not_measured]
    if control is None:
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


def _provenance(
    plan: Plan, arms: tuple[Arm, Arm, Arm | None], erasure: Erasure | None, seed: int, resamples: int, budget: Budget,
    attacks: Sequence[Attack], thresholds: Thresholds, clock: Clock, command: str | None,
) -> dict[str, str]:  # fmt: skip
    out = {f"weights {a.name}": f"{a.subject.name} sha256 {a.hash}" for a in arms if a is not None}
    if erasure is not None:
        out["erasure"] = json.dumps(erasure.describe(), default=str, ensure_ascii=False)
    out |= {
        "recogniser": f"{plan.recogniser.name} {plan.recogniser.version}",
        "seeds of answers": ", ".join(map(str, plan.seeds)),
        "bootstrap": f"seed {seed}, {resamples} resamples",
        "sampling": str(plan.sampling),
        "asked": f"{len(plan.tests())} test prompts and {sum(map(len, plan.fits()))} fit prompts per arm",
        "attacks": ", ".join(a.name for a in attacks) or "none",
        "budget": str(budget),
        "thresholds": str(thresholds),
        "calibration": outcome(),
        "versions": ", ".join(f"{k} {v}" for k, v in versions().items()),
        "command": command if command is not None else command_line(),
    }
    return out | {f"seconds: {stage}": f"{s:.1f}" for stage, s in clock.seconds.items()}
