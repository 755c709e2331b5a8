"""Behaviour of language models beyond what they write: how likely the gold answers are, and how they rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from concept_probe.auditing.arm import Arm
from concept_probe.auditing.evidence.behaviour import NAMES, Evidence, Views
from concept_probe.auditing.evidence.gold_answers import Likely, likely
from concept_probe.auditing.observe import Observation
from concept_probe.detect.answers import Continues
from concept_probe.evaluation.bayesian import Draws, residual_index
from concept_probe.find.language.knowledge import NEUTRAL
from concept_probe.types import FORGET_KINDS, RETAIN_KINDS, Finding, Kind, Prompt

MEASURES = {
    "probability": ("probability of the gold answer", "probability"),
    "rank": ("1 / rank of the gold answer's first token", "1 / rank"),
}


def likelihood(views: Views, arm: Arm) -> Evidence:
    """What the gold answers are worth to the model, per kind of prompt; nothing where answers are pictures.

    An answer that is likely and not written is suppressed, not gone: these give indices of their own, where there is a
    never-taught twin. On prompts that are to be kept they are findings alone. Without a twin the control is how likely
    the same answers are to the subject before after a text that asks nothing (`find.knowledge.NEUTRAL`); no index.
    """
    out = Evidence()
    for kind in views.before.likely:
        neutral = None if views.control is not None else _unasked(arm, views.plan.prompts(kind))
        for what in MEASURES:
            _measure(out, views, kind, what, neutral)
    if views.plan.reads and views.control is None:
        out.not_measured.append(
            "An index of how likely the gold answers are: without a twin nobody knows how likely they are to a model that "
            "was never taught."
        )
    return out


def _unasked(arm: Arm, prompts: Sequence[Prompt]) -> Likely:
    subject = arm.subject
    assert isinstance(subject, Continues)  # for the type checker: of others no likelihood was asked
    bare = [replace(p, text=NEUTRAL[p.form], subject=None) for p in prompts]
    with arm.on():
        return likely(subject, bare)


def _measure(out: Evidence, views: Views, kind: Kind, what: str, neutral: Likely | None) -> None:
    def drawn(seen: Observation, arm: str) -> Draws:
        return of(seen.likely[kind], arm)

    def of(found: Likely, arm: str) -> Draws:
        values: Tensor = getattr(found, what)
        return views.rate(views.per_fact(values[:, None].clamp(0, 1), kind), f"{kind}/{what}", arm)

    metric, unit = MEASURES[what]
    before, after = drawn(views.before, "before"), drawn(views.after, "after")
    never = None if views.control is None else drawn(views.control, "control")
    score = None
    if kind in FORGET_KINDS and never is not None:
        score = residual_index(f"{metric} on {NAMES[kind]}", before, after, never, views.thresholds.gap)
    note = ""
    if kind in FORGET_KINDS and never is not None and score is None:
        note = f"before − control is under {views.thresholds.gap:g}, or may be 0: no index"
    low, high = after.interval()
    out.findings.append(
        Finding(
            evidence="behaviour",
            metric=metric,
            split=kind,
            before=before.value,
            after=after.value,
            control=of(neutral, "neutral").value if neutral is not None else never.value if never is not None else None,
            low=low,
            high=high,
            n=after.n,
            better="higher" if kind in RETAIN_KINDS else "lower",
            index=score,
            control_name=views.control_name if neutral is None else "before, after a text that asks nothing",
            unit=unit,
            note=note,
        )
    )
    if score:
        out.indices.append(score)
