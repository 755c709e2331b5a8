"""One attack on one concept: how it asks, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor

from concept_probe.attacks.answers import AnswerCache, AskedBefore
from concept_probe.attacks.budget import Budget, Meter, Spent
from concept_probe.attacks.labels import label_of, relabelled
from concept_probe.attacks.pictures import report_pictures
from concept_probe.evaluation.trials import judge_answers
from concept_probe.families import Subject
from concept_probe.types import AnswerReader, Concept, Picture, Prompt, Query, Sampling, Score, Trial

if TYPE_CHECKING:
    from concept_probe.attacks.attack import Attack

AskedSubject = TypeVar("AskedSubject", bound=Subject)
"""The subjects that a run is on."""
MOST_PICTURES = 4
"""Pictures of an attempt that go into a report, at most."""


class NothingToAsk(ValueError):
    """The concept lacks what the attack would ask for: nothing was tried, and nothing can be said."""


@dataclass(frozen=True)
class Attempt:
    """One attack on one concept: success along the budget, and what it cost."""

    attack: str
    concept: str
    budget: Budget
    spent: Spent
    x_name: str
    """What the curve runs along: `queries` or `gradient steps`."""
    curve: tuple[tuple[int, Score], ...]
    """(budget spent, success with its interval); the first point is the baseline where there is one."""
    trials: tuple[tuple[Trial, ...], ...]
    """What was asked and seen: one tuple per point of the curve, or a single one that every point is computed from."""
    control: Score | None
    """Success of a random candidate under the same budget; None where the budget held no picture for it."""
    pictures: tuple[Picture, ...] = field(default=(), repr=False)
    """A few pictures of the last point."""
    note: str = ""
    """What a reader of the figures has to know: what could not be done, the words that were found."""

    @property
    def success(self) -> Score | None:
        """Success at the whole budget; None where nothing could be asked."""
        return self.curve[-1][1] if self.curve else None


@dataclass(frozen=True, eq=False)
class AttackRun(Generic[AskedSubject]):
    """An attack under way: what it is on, how it asks, and what it has spent.

    `replace(run, sampling=...)` asks otherwise, at the same expense.
    """

    attack: Attack
    subject: AskedSubject
    concept: Concept
    budget: Budget
    sampling: Sampling
    """How answers are made: as the attack says."""
    meter: Meter
    generator: torch.Generator
    """Source of what the attack draws."""
    known: AnswerCache | None = None
    earlier: AskedBefore | None = None

    @classmethod
    def start(
        cls, attack: Attack, subject: AskedSubject, concept: Concept, budget: Budget, known: AnswerCache | None = None,
        earlier: AskedBefore | None = None,
    ) -> AttackRun[AskedSubject]:  # fmt: skip
        generator = torch.Generator().manual_seed(attack.seed)
        return cls(attack, subject, concept, budget, attack.sampling, Meter(budget), generator, known, earlier)

    @property
    def label(self) -> str:
        """What answers have to show. Raises ValueError where the concept's prompts have no label."""
        return label_of(self.concept)

    def tests(self) -> tuple[Prompt, ...]:
        """The concept's own test prompts."""
        return relabelled(self.concept.prompts("target", "test"), self.label)

    def queries(self, prompts: Sequence[Prompt], count: int) -> tuple[Query, ...]:
        """At most `count` queries that can differ: every prompt once with the attack's seed, then every prompt with the
        next, and so on. A text without chance is the same for every seed, so each prompt is asked for one once."""
        if isinstance(self.attack.recogniser, AnswerReader) and self.sampling.temperature == 0:
            count = min(count, len(prompts))
        if not prompts:
            return ()
        return tuple(Query(prompts[i % len(prompts)], self.attack.seed + i // len(prompts)) for i in range(count))

    def ask(self, queries: Sequence[Query], state: str | None = None) -> tuple[tuple[Trial, ...], Sized | None]:
        """What the recogniser sees in the answers to `queries`, and the answers made for it (None if all were known).

        `state` names how the subject is, the same in every run of an attack that `continues`. Raises OverBudget for more
        queries than are left.
        """
        if not queries:
            return (), None
        self.meter.pictures(len(queries))
        recogniser = self.attack.recogniser
        seen = {} if self.known is None else dict(self.known.known(self.subject, recogniser, self.sampling))
        before = {}
        if self.earlier is not None and self.attack.continues and state is not None:
            before = self.earlier.answers(state)
        seen |= before
        new = [q for q in queries if q not in seen]
        answers = None
        if new:
            answers = self.subject.generate(new, self.sampling)
            now = dict(zip(new, judge_answers(recogniser, answers, new, self.label), strict=True))
            seen |= now
            before |= now
            if self.earlier is not None:
                self.earlier.made += len(new)
        return tuple(seen[q] for q in queries), answers

    def attempt(
        self, x_name: str, curve: Sequence[tuple[int, Score]], trials: Sequence[tuple[Trial, ...]], *,
        control: Score | None, shown: tuple[Sequence[Trial], Sized | None], note: str = "",
    ) -> Attempt:  # fmt: skip
        """What came of it, with what was spent by now; `shown` are trials and the answers that were made for them.

        Pictures are shown where they were made for those trials and no others.
        """
        last, images = shown
        pictures: tuple[Picture, ...] = ()
        if isinstance(images, Tensor) and len(images) == len(last):
            pictures = report_pictures(self.attack.name, "recovery", images[:MOST_PICTURES], last[:MOST_PICTURES])
        return Attempt(
            self.attack.name, self.concept.name, self.budget, self.meter.spent(), x_name, tuple(curve), tuple(trials),
            control, pictures, note,
        )  # fmt: skip
