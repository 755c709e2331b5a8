"""The walk that attacks have in common: reach a point of the curve, ask there, go on; in the end ask the control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from concept_probe.attacks.attack import Attack, point
from concept_probe.attacks.budget import Attempt, Budget, Meter
from concept_probe.attacks.pictures import shown_pictures
from concept_probe.attacks.queries import ask
from concept_probe.evaluation.rates import success_of
from concept_probe.types import Concept, Query

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class Candidate:
    """What an attack asks at one point: the queries, and how the subject is while they are answered."""

    queries: Sequence[Query]
    on: AbstractContextManager[object] | None = None
    """None: the subject as the attack found it, so that answers which are known already hold."""


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


def trace_curve(
    attack: Attack, subject: Subject, concept: Concept, budget: Budget, meter: Meter, way: CurvePlan
) -> Attempt:
    """Ask at every point of the way until the time is spent, then the control if pictures are left for it."""
    curve, trials, images, control = [], [], None, None

    def answers(candidate: Candidate):
        asker = attack if candidate.on is None else replace(attack, known={})
        with nullcontext() if candidate.on is None else candidate.on:
            return ask(asker, subject, concept, candidate.queries, meter)

    for goal in way.points:
        done = way.reach(goal)
        seen, images = answers(way.candidate(done))
        if seen:
            curve.append((done, point(attack, seen)))
            trials.append(seen)
        if meter.out_of_time():
            break
    if curve and not meter.out_of_time():
        random = way.control()
        if random.queries and meter.spent().queries + len(random.queries) <= budget.queries:
            seen, _ = answers(random)
            control = success_of(way.control_name, seen)
    last = shown_pictures(attack, trials[-1], images) if trials else ()
    return Attempt(
        attack.name, concept.name, budget, meter.spent(), way.x_name, tuple(curve), tuple(trials), control, last,
        way.note(),
    )  # fmt: skip


def shares(budget: Budget, points: Sequence[int], most: int) -> tuple[tuple[int, ...], int]:
    """The points to ask at, and how many pictures at each and for the control.

    A budget too small for one picture at every point keeps only the last.

    >>> shares(Budget(queries=9), (0, 4, 8), 16)
    ((0, 4, 8), 2)
    """
    kept = tuple(points)
    if budget.queries // (len(kept) + 1) < 1:
        kept = kept[-1:]
    return kept, min(most, budget.queries // (len(kept) + 1)) or min(1, budget.queries)
