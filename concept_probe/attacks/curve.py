"""The loop that attacks have in common: reach a point of the curve, ask there, go on; in the end ask the control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from concept_probe.attacks.attempt import AttackRun, Attempt
from concept_probe.evaluation.rates import success_of
from concept_probe.types import Query


@dataclass(frozen=True)
class Candidate:
    """What an attack asks at one point: the queries, and how the subject is while they are answered."""

    queries: Sequence[Query]
    on: AbstractContextManager[object] | None = None
    """None: the subject as the attack found it."""


@dataclass(frozen=True)
class CurvePlan:
    """How an attack gets from point to point."""

    points: Sequence[int]
    """What the curve runs along, in the order in which it is reached."""
    x_name: str
    reach: Callable[[int], int]
    """Work towards a point; returns how far it came."""
    candidate: Callable[[int], Candidate]
    """What is asked there."""
    control: Callable[[], Candidate]
    """The random candidate that cost as much; asked after the last point."""
    control_name: str
    note: Callable[[], str] = lambda: ""


def trace_curve(run: AttackRun[Any], plan: CurvePlan) -> Attempt:
    """Ask at every point of the plan until the time is spent, then the control if pictures are left for it."""
    curve, trials, images, control = [], [], None, None

    def answers(candidate: Candidate, state: str):
        with nullcontext() if candidate.on is None else candidate.on:
            return run.ask(candidate.queries, state)

    for goal in plan.points:
        done = plan.reach(goal)
        seen, images = answers(plan.candidate(done), f"{done} {plan.x_name}")
        if seen:
            curve.append((done, success_of(run.attack.name, seen)))
            trials.append(seen)
        if run.meter.out_of_time():
            break
    if curve and not run.meter.out_of_time():
        random = plan.control()
        if random.queries and run.meter.spent().queries + len(random.queries) <= run.budget.queries:
            seen, _ = answers(random, plan.control_name)
            control = success_of(plan.control_name, seen)
    last = (trials[-1], images) if trials else ((), None)
    return run.attempt(plan.x_name, curve, trials, control=control, shown=last, note=plan.note())
