"""What is asked of models in each round: every measure on its own share of the questions, and nothing twice."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from concept_probe.auditing.answer_book import AnswerBook
from concept_probe.auditing.arm import Arm
from concept_probe.auditing.cache import MeasurementCache
from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence import EVIDENCE, Measure
from concept_probe.auditing.observe import Observation, by_kind, gallery, observe
from concept_probe.auditing.places import Places
from concept_probe.auditing.plan import AuditPlan
from concept_probe.auditing.provenance import Clock
from concept_probe.auditing.questions import Questions
from concept_probe.auditing.rounds.doubt import Gathered
from concept_probe.auditing.rounds.limits import AuditRounds
from concept_probe.auditing.rounds.schedule import Depths
from concept_probe.auditing.sides import Sides
from concept_probe.content import digest_of
from concept_probe.evaluation.bayesian import BayesianBootstrap
from concept_probe.evaluation.looks import draws_for
from concept_probe.families.progress import bars
from concept_probe.types import JUDGED_KINDS, RETAIN_KINDS, Concept, Kind, Query, Subspace

MEASURES: dict[str, Measure] = {measure.name: measure for of in EVIDENCE.values() for measure in of}
"""By name, those of every kind of evidence."""
FIRST: Depths = dict.fromkeys(MEASURES, 1)
"""The first round: a little of everything."""


def share_of(plan: AuditPlan, rounds: AuditRounds, number: int) -> AuditPlan:
    """The plan of which round `number` is the whole."""
    share = number / rounds.looks
    budget = replace(plan.budget, queries=math.ceil(plan.budget.queries * share))
    return replace(plan, prompts=math.ceil(plan.prompts * share), budget=budget, rounds=None, even=True)


@dataclass(eq=False)
class RoundsOfAudit:
    """Asks the arms of an audit, as far as a round needs it.

    A measure at depth k of K is given what an audit of k/K of the plan's prompts gives it; answers are kept by query, so
    what one measure needs is there for the others, and a deeper one goes on from it.
    """

    plan: AuditPlan
    rounds: AuditRounds
    concept: Concept
    whole: Questions
    """All that may be asked in the end."""
    arms: Sides[Arm]
    places: Places
    found: tuple[Subspace, ...]
    cache: MeasurementCache
    clock: Clock
    _started: float = field(default_factory=time.perf_counter)
    _before: int = -1
    _done: dict[str, int] = field(default_factory=dict)
    _last: float = 0.0
    """Seconds of the round before, which is the least that a deeper one is taken to need."""
    _shares: dict[int, Questions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._before = self.cache.answers

    def answers(self) -> int:
        return self.cache.answers - self._before

    def bootstrap(self, error: float) -> BayesianBootstrap:
        return BayesianBootstrap(max(self.plan.resamples, draws_for(error)), self.plan.seed, error, careful=True)

    def gather(self, depths: Depths, error: float) -> Gathered:
        out: dict = {}
        begun = time.perf_counter()
        for kind, measures in EVIDENCE.items():
            with self.clock.stage(kind):
                out[kind] = {m.name: m(self._context(m, depths[m.name], error)) for m in measures}
        self._done |= depths
        self._last = time.perf_counter() - begun
        return out

    def deepened(self, depths: Depths, doubt: tuple[str, ...], number: int) -> Depths:
        """Those in doubt go on; so does whoever needs no answer more than they do."""
        new = {name: number if name in doubt else depth for name, depth in depths.items()}
        there = {
            kind: max([d for n, d in new.items() if kind in self._kinds(MEASURES[n])], default=1)
            for kind in JUDGED_KINDS
        }
        for name, measure in MEASURES.items():
            if measure.asks_itself is None and measure.asks:
                new[name] = max(new[name], min(there[kind] for kind in self._kinds(measure)))
        return new

    def forbids(self, depths: Depths) -> str:
        new, made, spent = self.most_asked(depths), self.answers(), time.perf_counter() - self._started
        ceiling = self.rounds.pictures
        if ceiling is not None and made + new > ceiling:
            return f"it may ask for {ceiling:,} answers, made {made:,}, and the next round may need {new:,} more"
        more = max(self._last, spent * new / made if made else 0.0)
        if spent + more > self.rounds.seconds:
            return f"it may take {self.rounds.seconds:g} s, took {spent:.0f}, and the next round needs about {more:.0f} more"
        return ""

    def most_asked(self, depths: Depths) -> int:
        """The most answers that a round at these depths can need beyond those that there are."""
        new: dict[tuple[str, Query], None] = {}
        for arm in self.arms:
            for name, depth in depths.items():
                asked = self._questions(depth, self._kinds(MEASURES[name]))
                new |= {(arm.state, q): None for q in self._book(arm).new(asked.answered(bool(self.places.inner)))}
        return len(new) + sum(self._asked_itself(depths))

    def _asked_itself(self, depths: Depths) -> Iterator[int]:
        nothing = self.arms.map(lambda _: Observation())
        for name, depth in depths.items():
            measure, done = MEASURES[name], self._done.get(name)
            if measure.asks_itself is None or done == depth or measure.on not in ("both", self.whole.answers):
                continue
            of = [None if d is None else self._with(measure, d, nothing, 0.05) for d in (depth, done)]
            assert of[0] is not None  # for the type checker: only the one before may be missing
            yield measure.asks_itself(of[0], of[1])

    def asked(self, depths: Depths, error: float) -> Context:
        """Everything that was asked for a round whose intervals miss by `error`, as a report tells it."""
        there = {k: max(d for n, d in depths.items() if k in self._kinds(MEASURES[n])) for k in JUDGED_KINDS}
        parts = {kind: getattr(self._questions(depth, JUDGED_KINDS).concept, kind) for kind, depth in there.items()}
        questions = replace(self.whole, concept=replace(self.whole.concept, **parts))

        def seen(arm: Arm) -> Observation:
            book = self._book(arm)
            trials = by_kind([book.trials[q] for q in questions.tests()], questions)
            return Observation(trials, pictures=tuple(book.pictures), writings=tuple(book.writings))

        plan, sides = replace(self.plan, resamples=self.bootstrap(error).resamples), self.arms.map(seen)
        return Context(
            plan, questions, self.arms, sides, self.places, self.found, self.cache, error, careful=True, whole=self.whole
        )  # fmt: skip

    def _kinds(self, measure: Measure) -> tuple[Kind, ...]:
        """Kinds of prompts that a measure needs answers to; without a twin, those of other things stand in for it."""
        more = RETAIN_KINDS if measure.asks and self.arms.control is None else ()
        return tuple(kind for kind in JUDGED_KINDS if kind in (*measure.asks, *more))

    def _questions(self, depth: int, kinds: tuple[Kind, ...]) -> Questions:
        if depth not in self._shares:
            whole, plan = self.whole, share_of(self.plan, self.rounds, depth)
            self._shares[depth] = Questions.of(plan, self.concept, whole.label, whole.recogniser, whole.answers)
        return replace(self._shares[depth], kinds=kinds)

    @cached_property
    def _gallery(self) -> Mapping[Query, Kind]:
        """What a report shows: of the first round, the same in all."""
        return gallery(self._questions(1, JUDGED_KINDS))

    @cached_property
    def _shown(self) -> str:
        return digest_of(tuple(self._gallery))

    def _context(self, measure: Measure, depth: int, error: float) -> Context:
        questions = self._questions(depth, self._kinds(measure))
        with bars() as bar:
            seen = self.arms.map(lambda arm: self._observed(arm, questions, depth, bar))
        return self._with(measure, depth, seen, error)

    def _with(self, measure: Measure, depth: int, seen: Sides[Observation], error: float) -> Context:
        plan = replace(share_of(self.plan, self.rounds, depth), resamples=self.bootstrap(error).resamples)
        questions = self._questions(depth, self._kinds(measure))
        return Context(
            plan, questions, self.arms, seen, self.places, self.found, self.cache, error, careful=True, whole=self.whole
        )  # fmt: skip

    def _observed(self, arm: Arm, questions: Questions, depth: int, bar) -> Observation:
        """One observation for arms in the same state, as without rounds."""
        every = self._questions(depth, JUDGED_KINDS)

        def look() -> Observation:
            book = self._book(arm)
            known = len(book.trials)
            seen = observe(
                arm, questions, self.places, bar, book=book, shown=self._gallery,
                read=lambda read: self.cache.get(every.key(arm, f"read {self.places.key()}"), read),
            )  # fmt: skip
            self.cache.answers += len(book.trials) - known
            return seen

        return self.cache.get(questions.key(arm, f"observation {self.places.key()} in rounds"), look)

    def _book(self, arm: Arm) -> AnswerBook:
        # A book keeps what is shown of what it asked: audits that show other answers have others.
        key = self.whole.key_of_answers(arm, f"answers {self.places.key()}, shown {self._shown}")
        return self.cache.get(key, lambda: AnswerBook(self.places))
