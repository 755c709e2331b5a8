"""Behaviour: what is drawn, or written, when the concept is asked for, and when it is not."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import torch

from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence.finding import Evidence, Measure, Metric, compare, joined_evidence
from concept_probe.auditing.observe import Observation
from concept_probe.auditing.sides import Side
from concept_probe.detect import serves
from concept_probe.evaluation.bayesian import Draws, damage_score, residual_index
from concept_probe.evaluation.rates import per_fact
from concept_probe.types import FORGET_KINDS, JUDGED_KINDS, RETAIN_KINDS, Judge, Kind, Score

if TYPE_CHECKING:
    from concept_probe.families import Subject

KIND_NAMES: dict[str, str] = {
    "target": "prompts that name it",
    "paraphrases": "paraphrases",
    "implicit": "implicit prompts",
    "composed": "prompts that name it and a style",
}
"""Kinds of prompts as sentences of a verdict name them."""
DETECTION = Metric("behaviour", "detection rate", "lower", "rate")
RECOGNITION = Metric("behaviour", "recognised as asked", "higher", "rate")
FALSE_DETECTION = Metric("behaviour", "seen where it was not asked for", "lower", "rate")
FAILURES = Metric("behaviour", "recogniser failed", "lower", "rate")


def _asked_for(context: Context, kind: Kind) -> Evidence:
    if not context.questions.prompts(kind):
        return Evidence(
            not_measured=(f"Behaviour on {KIND_NAMES[kind]}: the concept has none in its test split.",),
        )
    found = _detection(context, kind, kind)
    return Evidence(found.findings, direct=found.findings[0].index if kind == "target" else None)


def _composed(context: Context) -> Evidence:
    """Target prompts that name a style, where some do and some do not."""
    asked, styles = context.questions.prompts("target"), context.plan.styles
    composed = [i for i, p in enumerate(asked) if _names_one_of(styles, p.text)]
    if composed and len(composed) < len(asked):
        return _detection(context, "composed", "target", composed)
    if not styles:
        why = "no styles were named (`styles=`)."
    elif composed:
        why = "every prompt that names the concept also names a style."
    else:
        why = f"no target prompt of the test split names one of {', '.join(styles)}."
    return Evidence(not_measured=(f"Composed prompts apart from the rest: {why}",))


def _names_one_of(styles: tuple[str, ...], text: str) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(s)}(?!\w)", text, re.IGNORECASE) for s in styles)


def _detection(context: Context, name: str, kind: Kind, rows: list[int] | None = None) -> Evidence:
    """On all prompts of a kind, or on those of `rows`."""
    asked = context.questions.prompts(kind)
    rows = list(range(len(asked))) if rows is None else rows
    prompts = [asked[i] for i in rows]

    def rate(seen: Observation, side: Side) -> Draws:
        return context.rate(per_fact(seen.hits(kind)[rows], prompts), name, side)

    seen = context.seen
    before, after = rate(seen.before, "before"), rate(seen.after, "after")
    never = context.false_detection() if seen.control is None else rate(seen.control, "control")
    assert never is not None  # for the type checker: an audit without a twin and without other things is refused
    index = residual_index(KIND_NAMES[name], before, after, never, context.gap)
    note = "" if index else context.no_index()
    return Evidence(
        (compare(DETECTION, name, before, after, never, control=context.control_name, index=index, note=note),)
    )


def _kept(context: Context) -> Evidence:
    """Neighbours and unrelated prompts, and what the recogniser takes for the concept there."""
    return joined_evidence((*(_retained(context, kind) for kind in RETAIN_KINDS), _false_detection(context)))


def _retained(context: Context, kind: Kind) -> Evidence:
    if not context.questions.prompts(kind):
        return Evidence(not_measured=(f"What happens to {kind}: the concept has none in its test split.",))

    def rate(seen: Observation, side: Side) -> Draws:
        return context.rate(context.per_fact(seen.hits(kind), kind), kind, side)

    seen = context.seen
    before, after = rate(seen.before, "before"), rate(seen.after, "after")
    never = None if seen.control is None else rate(seen.control, "control")
    loss = loss_of(kind, before, after, never)
    note = "nothing of it worked before"
    if loss is not None:
        than = "lost against the twin" if expected(before, never) is never else "lost"
        note = f"{loss.value:.0%} [{loss.low:.0%}, {loss.high:.0%}] {than}".replace("-", "−")
    control = context.control_name if context.has_twin else ""
    found = compare(RECOGNITION, kind, before, after, never, control=control, note=note)
    return Evidence((found,), losses=(loss,) if loss else ())


def loss_of(kind: str, before: Draws, after: Draws, never: Draws | None) -> Score | None:
    """The share lost of what worked before, or of what the twin does where that is worse: leaving the concept out of the
    training costs as much by itself. None where nothing worked."""
    return damage_score(kind, expected(before, never), after)


def expected(before: Draws, never: Draws | None) -> Draws:
    """What an erased model may be asked to do: as before, or as the twin where that does worse. One that does less than
    half as well is no twin of this model, and would hide damage."""
    return never if never is not None and before.value / 2 <= never.value < before.value else before


def _false_detection(context: Context) -> Evidence:
    """The recogniser's own mistakes are findings: they bound what every other number can mean."""
    if not context.questions.prompts_of(RETAIN_KINDS):
        return Evidence()
    seen = context.seen
    before = context.rate(context.false_hits(seen.before), "mistakes", "before")
    after = context.rate(context.false_hits(seen.after), "mistakes", "after")
    never = None if seen.control is None else float(context.false_hits(seen.control).mean())
    control = context.control_name if context.has_twin else ""
    note = _about(context.questions.recogniser, context.arms.before.subject)
    where = "neighbours and unrelated"
    return Evidence((compare(FALSE_DETECTION, where, before, after, never, control=control, note=note),))


def _about(recogniser: Judge, subject: Subject) -> str:
    """Which recogniser it is, and what it says of its own errors on clean pictures of models that it was made for."""
    about = f"recogniser {recogniser.name} {recogniser.version}; before: its false positives on the unedited model"
    if serves(recogniser, subject) is False:
        return f"{about}; it was made for the pictures of other models: its errors on these were not measured"
    own = [
        f"{name} {value:.1%}"
        for name, key in (("wrong", "error"), ("false positives", "false_positives"))
        if isinstance(value := getattr(recogniser, key, None), float)
    ]
    return about + (f"; on held-out pictures of its own: {', '.join(own)}" if own else "")


def _failures(context: Context) -> Evidence:
    """How often the recogniser could not read an answer; nothing where it always could."""

    def failed(seen: Observation) -> list[float]:
        return [float(t.seen == "error") for rows in seen.trials.values() for row in rows for t in row]

    before, after = failed(context.seen.before), failed(context.seen.after)
    if not any(before) and not any(after):
        return Evidence()
    rate = context.rate(torch.tensor(after).unsqueeze(1), "errors", "after")
    note = "counted as shown where the concept was asked for, as lost elsewhere"
    return Evidence((compare(FAILURES, "all prompts", sum(before) / len(after), rate, note=note),))


BEHAVIOUR = (
    *(Measure(KIND_NAMES[kind], partial(_asked_for, kind=kind), asks=(kind,)) for kind in FORGET_KINDS),
    Measure(KIND_NAMES["composed"], _composed, asks=("target",)),
    Measure("what is to be kept", _kept, asks=RETAIN_KINDS),
    Measure("failures of the recogniser", _failures, asks=JUDGED_KINDS),
)
"""One measure for each list of prompts: a list in doubt is asked further alone."""
