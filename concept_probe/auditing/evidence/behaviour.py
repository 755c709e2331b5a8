"""Behaviour: what is drawn, or written, when the concept is asked for, and when it is not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from concept_probe.auditing.arm import Plan
from concept_probe.auditing.observe import Observation
from concept_probe.auditing.verdict import Thresholds
from concept_probe.evaluation.bayesian import BayesianBootstrap, Draws, damage_score, residual_index
from concept_probe.evaluation.rates import per_fact
from concept_probe.types import FORGET_KINDS, RETAIN_KINDS, Finding, Judge, Kind, Score

NAMES = {
    "target": "prompts that name it", "paraphrases": "paraphrases", "implicit": "implicit prompts",
    "composed": "prompts that name it and a style",
}  # fmt: skip


@dataclass
class Evidence:
    """What one kind of evidence found."""

    findings: list[Finding] = field(default_factory=list)
    indices: list[Score] = field(default_factory=list)
    not_measured: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Views:
    """The observations of an audit, and how numbers are drawn from them."""

    plan: Plan
    before: Observation
    after: Observation
    control: Observation | None
    bootstrap: BayesianBootstrap
    thresholds: Thresholds

    @property
    def control_name(self) -> str:
        return "never-taught twin" if self.control else "mistakes of the recogniser on other concepts"

    def name(self, arm: str) -> str:
        """Arms that are the same model in the same state are one sample, not two: they share a name."""
        if arm == "control" and self.control is self.after:
            arm = "after"
        return "before" if arm == "after" and self.after is self.before else arm

    def rate(self, hits: Tensor, key: str, arm: str) -> Draws:
        """The rate of hits (prompts, seeds) in one arm; arms are paired under a key."""
        return self.bootstrap.rate(hits, key, self.name(arm))

    def per_fact(self, hits: Tensor, kind: Kind) -> Tensor:
        """(facts, seeds): wordings of one fact count once. Prompts without one count each."""
        return per_fact(hits, self.plan.prompts(kind))

    def direct(self) -> Draws:
        """Detection before the erasure on prompts that name the concept."""
        return self.rate(self.per_fact(self.before.hits("target"), "target"), "target", "before")

    def mistakes(self) -> Draws:
        """How often the subject, before, is said to show the concept when something else is asked."""
        return self.rate(self.mistaken(self.before), "mistakes", "before")

    def mistaken(self, seen: Observation) -> Tensor:
        """(facts, seeds): how often an answer to a neighbour or an unrelated prompt is said to show the concept."""
        asked = [p for kind in RETAIN_KINDS for p in self.plan.prompts(kind)]
        hits = seen.mistaken(self.plan.label)
        return per_fact(hits, asked) if asked else hits


def behaviour(views: Views, styles: Sequence[str]) -> tuple[Evidence, Score | None, list[Score]]:
    """Findings; the index of prompts that name the concept; the shares lost on neighbours and unrelated prompts."""
    out, direct, losses = Evidence(), None, []
    for kind in FORGET_KINDS:
        if not views.plan.prompts(kind):
            out.not_measured.append(f"Behaviour on {NAMES[kind]}: the concept has none in its test split.")
            continue
        score = _detection(out, views, kind, kind, None)
        direct = score if kind == "target" else direct
    composed = [i for i, p in enumerate(views.plan.prompts("target")) if _names_a_style(p.text, styles)]
    if composed and len(composed) < len(views.plan.prompts("target")):
        _detection(out, views, "composed", "target", composed)
    else:
        out.not_measured.append(
            "Composed prompts apart from the rest: "
            + (
                "no styles were named (`styles=`)."
                if not styles
                else "every prompt that names the concept also names a style."
                if composed
                else f"no target prompt of the test split names one of {', '.join(styles)}."
            )
        )
    for kind in RETAIN_KINDS:
        if not views.plan.prompts(kind):
            out.not_measured.append(f"What happens to {kind}: the concept has none in its test split.")
            continue
        losses += _kept(out, views, kind)
    _recogniser(out, views)
    return out, direct, losses


def _names_a_style(text: str, styles: Sequence[str]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(s)}(?!\w)", text, re.IGNORECASE) for s in styles)


def _detection(out: Evidence, views: Views, name: str, kind, rows: list[int] | None) -> Score | None:
    asked = list(enumerate(views.plan.prompts(kind)))
    prompts = [p for i, p in asked if rows is None or i in rows]
    chosen = [i for i, _ in asked if rows is None or i in rows]

    def draw(seen: Observation, arm: str) -> Draws:
        return views.rate(per_fact(seen.hits(kind)[chosen], prompts), name, arm)

    before, after = draw(views.before, "before"), draw(views.after, "after")
    never = views.mistakes() if views.control is None else draw(views.control, "control")
    score = residual_index(NAMES[name], before, after, never, views.thresholds.gap)
    low, high = after.interval()
    note = "" if score else f"before − control is under {views.thresholds.gap:g}, or may be 0: no index"
    out.findings.append(
        Finding(
            "behaviour",
            "detection rate",
            name,
            before.value,
            after.value,
            never.value,
            low,
            high,
            after.n,
            "lower",
            score,
            views.control_name,
            "rate",
            note,
        )
    )
    if score:
        out.indices.append(score)
    return score


def _kept(out: Evidence, views: Views, kind) -> list[Score]:
    def draw(seen: Observation, arm: str) -> Draws:
        return views.rate(views.per_fact(seen.hits(kind), kind), kind, arm)

    before, after = draw(views.before, "before"), draw(views.after, "after")
    control = None if views.control is None else float(views.per_fact(views.control.hits(kind), kind).mean())
    low, high = after.interval()
    gone = damage_score(kind, before, after)
    note = "nothing of it worked before"
    if gone is not None:
        note = f"{gone.value:.0%} [{gone.low:.0%}, {gone.high:.0%}] lost".replace("-", "−")
    out.findings.append(
        Finding(
            "behaviour",
            "recognised as asked",
            kind,
            before.value,
            after.value,
            control,
            low,
            high,
            after.n,
            "higher",
            None,
            views.control_name if views.control else "",
            "rate",
            note,
        )
    )
    return [gone] if gone else []


def _told(recogniser: Judge) -> str:
    """Which recogniser it is, and what it says of its own errors on clean pictures."""
    told = f"recogniser {recogniser.name} {recogniser.version}; before: its false positives on the unedited model"
    own = [
        f"{name} {value:.1%}"
        for name, key in (("wrong", "error"), ("false positives", "false_positives"))
        if isinstance(value := getattr(recogniser, key, None), float)
    ]
    return told + (f"; on held-out pictures of its own: {', '.join(own)}" if own else "")


def _recogniser(out: Evidence, views: Views) -> None:
    """The recogniser's own mistakes are findings: they bound what every other number can mean."""
    if any(views.plan.prompts(k) for k in RETAIN_KINDS):
        before = views.mistakes()
        after = views.rate(views.mistaken(views.after), "mistakes", "after")
        control = None if views.control is None else float(views.mistaken(views.control).mean())
        low, high = after.interval()
        out.findings.append(
            Finding(
                "behaviour",
                "seen where it was not asked for",
                "neighbours and unrelated",
                before.value,
                after.value,
                control,
                low,
                high,
                after.n,
                "lower",
                None,
                views.control_name if views.control else "",
                "rate",
                _told(views.plan.recogniser),
            )
        )
    errors = [
        sum(t.seen == "error" for rows in o.trials.values() for row in rows for t in row)
        for o in (views.before, views.after)
    ]
    if any(errors):
        n = sum(len(row) for rows in views.after.trials.values() for row in rows)
        rate = views.rate(
            torch.tensor(
                [[float(t.seen == "error")] for rows in views.after.trials.values() for row in rows for t in row]
            ),
            "errors",
            "after",
        )
        out.findings.append(
            Finding(
                "behaviour",
                "recogniser failed",
                "all prompts",
                errors[0] / n,
                rate.value,
                None,
                *rate.interval(),
                n,
                "lower",
                unit="rate",
                note="counted as shown where the concept was asked for, as lost elsewhere",
            )
        )
