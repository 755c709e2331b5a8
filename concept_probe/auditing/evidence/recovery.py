"""Recovery: what attacks bring back, against the same attacks on the never-taught twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from concept_probe.attacks import ATTACKS, AnswerCache, AskedBefore, Attack, Attempt, NothingToAsk
from concept_probe.auditing.arm import Arm
from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence.finding import Evidence, Measure, Metric, compare, joined_evidence
from concept_probe.auditing.observe import Observation
from concept_probe.auditing.sides import Side
from concept_probe.evaluation.bayesian import Draws, residual_index
from concept_probe.evaluation.rates import per_fact, succeeded
from concept_probe.families import TooLong
from concept_probe.registry import look_up
from concept_probe.types import Curve, Score


def _recovery(context: Context) -> Evidence:
    """Every attack on the erased subject, its erasure on; and on the twin with the same budget."""
    attacks = attacks_asked_for(context)
    missing: list[str] = []
    if not attacks:
        missing.append("Recovery: no attack was asked for.")
    elif not context.has_twin:
        missing.append(
            "What attacks teach a model that never knew the concept: without a twin, attacks that train have no index."
        )
    subject = context.arms.after.subject
    unsuited = [attack.name for attack in attacks if not attack.suits(subject)]
    if unsuited:
        other = "pictures" if context.answers == "texts" else "texts"
        missing.append(f"Recovery by {', '.join(unsuited)}: made for models that answer with {other}.")
    tried = joined_evidence(_recovery_by(attack, context) for attack in attacks if attack.suits(subject))
    return joined_evidence((Evidence(not_measured=tuple(missing)), tried))


def attacks_asked_for(context: Context) -> list[Attack]:
    """Attacks by name with the audit's recogniser and sampling; instances as they are."""
    asked, out = context.questions, []
    for attack in context.plan.attacks_on(context.arms.after.subject):
        if isinstance(attack, str):
            make = look_up(ATTACKS, attack, "attack", "concept_probe.attacks.ATTACKS")
            attack = make(asked.recogniser, asked.sampling, asked.seeds[0])
        out.append(attack)
    return out


def _recovery_by(attack: Attack, context: Context) -> Evidence:
    def not_measured(why: str) -> Evidence:
        return Evidence(not_measured=(f"Recovery by {attack.name}: {why}.",))

    if attack.lacks_examples(context.arms.after.subject, context.questions.concept):
        if context.answers == "texts":
            return not_measured("it learns from pictures, and the concept has none")
        return not_measured("the concept has no example pictures")
    arms, seen = context.arms, context.seen
    of, never = "erased subject", None
    try:
        found = _run(attack, arms.after, seen.after, context)
        if arms.control is not None and seen.control is not None:
            of, same = "control", arms.control.state == arms.after.state
            never = found if same else _run(attack, arms.control, seen.control, context)
    except FloatingPointError as error:
        return not_measured(f"the {of}'s loss is no number ({error})")
    except (NothingToAsk, TooLong) as error:
        return not_measured(str(error))
    if not found.curve:
        return joined_evidence((Evidence(pictures=found.pictures), not_measured("the budget holds no answer")))
    finding = _finding(context, attack, found, never)
    return joined_evidence((Evidence(pictures=found.pictures, curves=(_curve(found, never),)), finding))


def _run(attack: Attack, arm: Arm, seen: Observation, context: Context) -> Attempt:
    budget, asked = context.plan.budget, context.questions
    whole = context.whole if context.whole is not None and attack.continues else asked
    shape = replace(attack, recogniser=None)  # pyright: ignore[reportArgumentType]

    def attempt() -> Attempt:
        earlier = AskedBefore()
        if attack.continues and context.whole is not None:
            once = whole.key(arm, f"attack {shape!r} {replace(budget, queries=0)!r} so far")
            earlier = context.cache.get(once, AskedBefore)
        made = earlier.made
        with arm.on():
            known = AnswerCache(arm.subject, asked.recogniser, asked.sampling, seen.answered)
            found = attack(arm.subject, whole.concept, budget, known, earlier)
        context.cache.answers += earlier.made - made
        earlier.pictures = earlier.pictures or found.pictures
        return replace(found, pictures=found.pictures or earlier.pictures)

    return context.cache.get(asked.key(arm, f"attack {shape!r} {budget!r}"), attempt)


def _curve(found: Attempt, never: Attempt | None) -> Curve:
    scores = [s for _, s in found.curve]
    control = tuple(s.value for _, s in never.curve) if never and len(never.curve) == len(scores) else ()
    return Curve(
        name=found.attack,
        x_name=found.x_name,
        y_name="success rate",
        x=tuple(float(x) for x, _ in found.curve),
        y=tuple(s.value for s in scores),
        low=tuple(s.low for s in scores),
        high=tuple(s.high for s in scores),
        control=control,
        control_name="same attack on the never-taught twin" if control else "",
    )


@dataclass(frozen=True, eq=False)
class _Point:
    """One point of an attack's curve."""

    x: int
    after: Draws
    never: Draws
    index: Score | None


def _points(context: Context, attack: Attack, found: Attempt, never: Attempt | None) -> list[_Point]:
    """Those at which something is known of a model that was never taught."""
    before, out = context.direct(), []
    for i in range(len(found.trials)):
        after = _rate(context, found, i, "after")
        if never is not None and i < len(never.trials):
            chance = _rate(context, never, i, "control")
        elif not attack.brings or found.curve[i][0] == 0:
            chance = context.false_detection()
        else:
            chance = None
        if chance is None:
            continue
        x = found.curve[i][0] if len(found.trials) == len(found.curve) else 1
        name = f"recovery by {found.attack} ({_amount(x, found.x_name)})"
        out.append(_Point(x, after, chance, residual_index(name, before, after, chance, context.gap)))
    return out


def _rate(context: Context, attempt: Attempt, i: int, side: Side) -> Draws:
    """Success at one point. Texts on one fact count once, in however many wordings or draws it was asked for."""
    trials = attempt.trials[i]
    hits = torch.tensor([[float(succeeded(t))] for t in trials])
    if context.answers == "texts":
        hits = per_fact(hits, [t.query.prompt for t in trials])
    return context.rate(hits, f"{attempt.attack}/{i}", side)


def _finding(context: Context, attack: Attack, found: Attempt, never: Attempt | None) -> Evidence:
    """At the point with the largest index; at the first where none has one."""
    points = _points(context, attack, found, never)
    if not points:
        return Evidence()
    best = _largest(points)
    notes = [_budget(found, context.answers)]
    if found.control is not None:
        notes.append(f"random candidate {found.control.value:.0%}")
    if found.note:
        notes.append(found.note)
    if best.index is None:
        notes.append(f"before − control is under {context.gap:g}, or may be 0, at every point: no index")
    return Evidence(
        (
            compare(
                Metric("recovery", f"success of {found.attack}", "lower", "rate"),
                _amount(best.x, found.x_name),
                context.direct(),
                best.after,
                best.never,
                control="same attack on the never-taught twin" if never else "mistakes of the recogniser",
                index=best.index,
                note="; ".join(notes),
            ),
        )
    )


def _largest(points: Sequence[_Point]) -> _Point:
    """The first of those with the largest index; the first of all where none has one."""
    known = [(p.index.value, -i) for i, p in enumerate(points) if p.index is not None]
    return points[-max(known)[1]] if known else points[0]


def _budget(found: Attempt, answers: str) -> str:
    budget = found.budget
    return f"budget {budget.queries} {answers}, {budget.gradient_steps} steps, {budget.examples} examples"


def _amount(x: int | float, name: str) -> str:
    """`1 query`, `30 gradient steps`."""
    single = {"queries": "query"}.get(name, name.removesuffix("s"))
    return f"{x} {single if x == 1 else name}"


def most_attacked(context: Context, known: Context | None) -> int:
    """What the budget holds of every attack, on the erased arm and on the twin.

    That one goes on from what it asked before is not counted on: how much of it serves again is known afterwards.
    """
    arms, subject = 1 if context.arms.control is None else 2, context.arms.after.subject
    return arms * context.plan.budget.queries * sum(a.suits(subject) for a in attacks_asked_for(context))


RECOVERY = Measure("recovery", _recovery, asks=("target",), asks_itself=most_attacked)
