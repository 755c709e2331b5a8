"""Behaviour of language models beyond what they write: how likely the gold answers are, and how they rank.

An answer that is likely and not written is suppressed, not gone: these give indices of their own, where there is a
never-taught twin. On prompts of others they are findings alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from torch import Tensor

from concept_probe.auditing.arm import Arm
from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence.behaviour import KIND_NAMES
from concept_probe.auditing.evidence.finding import Evidence, Measure, Metric, compare, joined_evidence
from concept_probe.auditing.gold_answers import AnswerLikelihood, answer_likelihood
from concept_probe.auditing.sides import Side
from concept_probe.detect.answers import Continues
from concept_probe.evaluation.bayesian import Draws, residual_index
from concept_probe.find.language.knowledge import NEUTRAL
from concept_probe.types import FORGET_KINDS, JUDGED_KINDS, RETAIN_KINDS, Kind, Prompt

LikelihoodPart = Literal["probability", "rank"]
NAMES_AND_UNITS: dict[LikelihoodPart, tuple[str, str]] = {
    "probability": ("probability of the gold answer", "probability"),
    "rank": ("1 / rank of the gold answer's first token", "1 / rank"),
}


def _likelihood(context: Context) -> Evidence:
    """Without a twin the control is how likely the same answers are to the subject before after a text that asks
    nothing (`find.language.knowledge.NEUTRAL`), and there is no index."""
    parts = []
    for kind in context.seen.before.likelihoods:
        neutral = None if context.has_twin else _unasked(context.arms.before, context.questions.prompts(kind))
        parts += [_compare(context, kind, part, neutral) for part in NAMES_AND_UNITS]
    if not context.has_twin:
        parts.append(
            Evidence(
                not_measured=(
                    "An index of how likely the gold answers are: without a twin nobody knows how likely they are to a "
                    "model that was never taught.",
                )
            )
        )
    return joined_evidence(parts)


def _unasked(arm: Arm, prompts: Sequence[Prompt]) -> AnswerLikelihood:
    subject = arm.subject
    assert isinstance(subject, Continues)  # for the type checker: others have no likelihoods
    bare = [replace(p, text=NEUTRAL[p.form], subject=None) for p in prompts]
    with arm.on():
        return answer_likelihood(subject, bare)


def _compare(context: Context, kind: Kind, part: LikelihoodPart, neutral: AnswerLikelihood | None) -> Evidence:
    def rate(found: AnswerLikelihood, side: Side | str) -> Draws:
        values: Tensor = getattr(found, part)
        return context.rate(context.per_fact(values[:, None].clamp(0, 1), kind), f"{kind}/{part}", side)

    name, unit = NAMES_AND_UNITS[part]
    metric = Metric("behaviour", name, "higher" if kind in RETAIN_KINDS else "lower", unit)
    of = {side: rate(seen.likelihoods[kind], side) for side, seen in context.seen.items()}
    before, after, never = of["before"], of["after"], of.get("control")
    if neutral is not None:
        control = "before, after a text that asks nothing"
        return Evidence((compare(metric, kind, before, after, rate(neutral, "neutral"), control=control),))
    index, note = None, ""
    if kind in FORGET_KINDS and never is not None:
        index = residual_index(f"{name} on {KIND_NAMES[kind]}", before, after, never, context.gap)
        note = "" if index else context.no_index()
    return Evidence(
        (compare(metric, kind, before, after, never, control=context.control_name, index=index, note=note),)
    )


LIKELIHOOD = Measure("likelihood", _likelihood, on="texts", asks=JUDGED_KINDS)
