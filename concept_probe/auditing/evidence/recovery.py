"""Recovery: what attacks bring back, against the same attacks on the never-taught twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from concept_probe.attacks import ATTACKS, AnswerCache, Attack, Attempt, Budget, NothingToAsk
from concept_probe.auditing.arm import Arm, Memory
from concept_probe.auditing.evidence.behaviour import Evidence, Views
from concept_probe.auditing.observe import Observation
from concept_probe.evaluation.bayesian import Draws, residual_index
from concept_probe.evaluation.rates import per_fact, succeeded
from concept_probe.families import TooLong
from concept_probe.registry import look_up
from concept_probe.types import Curve, Finding, Picture, Score


def instances(views: Views, attacks: Sequence[str | Attack]) -> list[Attack]:
    """Attacks by name with the audit's recogniser and sampling; instances as they are."""
    out = []
    for attack in attacks:
        if isinstance(attack, str):
            make = look_up(ATTACKS, attack, "attack", "concept_probe.attacks.ATTACKS")
            attack = make(views.plan.recogniser, views.plan.sampling, views.plan.seeds[0])
        out.append(attack)
    return out


def recover(
    views: Views, after: Arm, control: Arm | None, attacks: Sequence[Attack], budget: Budget, memory: Memory
) -> tuple[Evidence, list[Curve], list[Picture], list[Attempt]]:
    """Every attack on the erased subject, its erasure on; and on the twin with the same budget."""
    out, curves, pictures, attempts = Evidence(), [], [], []
    concept = views.plan.concept
    if not attacks:
        out.not_measured.append("Recovery: no attack was asked for.")
    elif control is None:
        out.not_measured.append(
            "What attacks teach a model that never knew the concept: without a twin, attacks that train have no index."
        )
    unsuited = [attack.name for attack in attacks if not attack.suits(after.subject)]
    if unsuited:
        what = "pictures" if views.plan.reads else "texts"
        out.not_measured.append(f"Recovery by {', '.join(unsuited)}: made for models that answer with {what}.")
    for attack in attacks:
        if not attack.suits(after.subject):
            continue
        if attack.lacks_examples(after.subject, concept):
            what = (
                "it learns from pictures, and the concept has none"
                if views.plan.reads
                else "the concept has no example pictures"
            )
            out.not_measured.append(f"Recovery by {attack.name}: {what}.")
            continue
        arm, other = "erased subject", None
        try:
            mine = _run(attack, after, views.after, views, budget, memory)
            if control is not None and views.control is not None:
                arm, same = "control", control.state == after.state
                other = mine if same else _run(attack, control, views.control, views, budget, memory)
        except FloatingPointError as error:
            out.not_measured.append(f"Recovery by {attack.name}: the {arm}'s loss is no number ({error}).")
            continue
        except (NothingToAsk, TooLong) as error:
            out.not_measured.append(f"Recovery by {attack.name}: {error}.")
            continue
        attempts.append(mine)
        pictures += mine.pictures
        if not mine.curve:
            out.not_measured.append(f"Recovery by {attack.name}: the budget holds no answer.")
            continue
        curves.append(_curve(mine, other))
        _index(out, views, attack, mine, other)
    return out, curves, pictures, attempts


def _run(attack: Attack, arm: Arm, seen: Observation, views: Views, budget: Budget, memory: Memory) -> Attempt:
    def make() -> Attempt:
        with arm.on():
            known = AnswerCache(arm.subject, views.plan.recogniser, views.plan.sampling, seen.known())
            return attack(arm.subject, views.plan.concept, budget, known)

    shape = replace(attack, recogniser=None)  # pyright: ignore[reportArgumentType]
    return memory.get(views.plan.key(arm, f"attack {shape!r} {budget!r}"), make)


def _curve(mine: Attempt, other: Attempt | None) -> Curve:
    scores = [s for _, s in mine.curve]
    control = tuple(s.value for _, s in other.curve) if other and len(other.curve) == len(scores) else ()
    return Curve(
        mine.attack, mine.x_name, "success rate", tuple(float(x) for x, _ in mine.curve),
        tuple(s.value for s in scores), tuple(s.low for s in scores), tuple(s.high for s in scores), control,
        "same attack on the never-taught twin" if control else "",
    )  # fmt: skip


def _rate(views: Views, attempt: Attempt, i: int, arm: str) -> Draws:
    """Success at one point. Texts on one fact count once, in however many wordings or draws it was asked for."""
    trials = attempt.trials[i]
    hits = torch.tensor([[float(succeeded(t))] for t in trials])
    if views.plan.reads:
        hits = per_fact(hits, [t.query.prompt for t in trials])
    return views.rate(hits, f"{attempt.attack}/{i}", arm)


def _index(out: Evidence, views: Views, attack: Attack, mine: Attempt, other: Attempt | None) -> None:
    """The largest residual_index along the curve, among points where the twin is still below the subject before."""
    before = views.direct()
    best: tuple[Score | None, Draws, Draws, int] | None = None
    for i in range(len(mine.trials)):
        after = _rate(views, mine, i, "after")
        if other is not None and i < len(other.trials):
            never = _rate(views, other, i, "control")
        elif not attack.brings or mine.curve[i][0] == 0:
            never = views.mistakes()
        else:
            continue
        x = mine.curve[i][0] if len(mine.trials) == len(mine.curve) else 1
        what = f"recovery by {mine.attack} ({_amount(x, mine.x_name)})"
        score = residual_index(what, before, after, never, views.thresholds.gap)
        if best is None or (score is not None and (best[0] is None or score.value > best[0].value)):
            best = (score, after, never, x)
    if best is None:
        return
    score, after, never, x = best
    amount = _amount(x, mine.x_name)
    answers = "texts" if views.plan.reads else "pictures"
    note = (
        f"budget {mine.budget.queries} {answers}, {mine.budget.gradient_steps} steps, {mine.budget.examples} examples"
    )
    if mine.control is not None:
        note += f"; random candidate {mine.control.value:.0%}"
    if mine.note:
        note += f"; {mine.note}"
    if score is None:
        note += f"; before − control is under {views.thresholds.gap:g}, or may be 0, at every point: no residual_index"
    out.findings.append(
        Finding(
            "recovery",
            f"success of {mine.attack}",
            amount,
            before.value,
            after.value,
            never.value,
            *after.interval(),
            after.n,
            "lower",
            score,
            "same attack on the never-taught twin" if other else "mistakes of the recogniser",
            "rate",
            note,
        )
    )
    if score:
        out.indices.append(score)


def _amount(x: int | float, name: str) -> str:
    """`1 query`, `30 gradient steps`."""
    single = {"queries": "query"}.get(name, name.removesuffix("s"))
    return f"{x} {single if x == 1 else name}"
