"""What every attack is: options that are called with a subject, a concept and a budget, and a declaration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, cast, final

from concept_probe.arguments import SeedNumber, check_arguments
from concept_probe.attacks.answers import AnswerCache, AskedBefore
from concept_probe.attacks.attempt import AttackRun, Attempt, NothingToAsk
from concept_probe.attacks.budget import Budget
from concept_probe.families import Subject
from concept_probe.types import Concept, Judge, Sampling

Attacked = TypeVar("Attacked", bound=Subject)
"""The subjects that an attack is on."""


@dataclass(frozen=True, eq=False)
class Attack(ABC, Generic[Attacked]):
    """Tries to bring a concept back within a budget. A subclass writes `run` and declares:

    >>> @dataclass(frozen=True, eq=False)
    ... class Shouted(Attack[Subject]):
    ...     name = "shouted"
    ...     on = "both"
    ...     marks: int = 3
    ...
    ...     def run(self, run):
    ...         prompts = [replace(p, text=p.text + "!" * self.marks) for p in run.tests()]
    ...         return best_of_n(run, PromptPlan(prompts, decoys(run.concept), "unrelated prompts"))

    It is run with the erasure on, and asks of nothing else: an attack on an intervention is an attack on a model that
    has the intervention.

    >>> with erasure.on(subject):
    ...     attempt = ATTACKS["relearning"](recogniser)(subject, concept, Budget(gradient_steps=60))
    """

    recogniser: Judge
    """Says whether an answer shows the concept; its labels must hold the label of the concept's prompts."""
    sampling: Sampling = field(default_factory=Sampling)
    """How pictures, or texts, are made."""
    seed: SeedNumber = 0
    """Of everything that the attack draws; the noise of its pictures starts from it too."""

    name: ClassVar[str]
    """Its key in ATTACKS."""
    on: ClassVar[Literal["pictures", "texts", "both"]]
    """What it can attack: subjects that answer with pictures, with texts, or either."""
    needs_examples: ClassVar[bool] = False
    """Whether it can do anything without examples of the concept: pictures, or of subjects that answer with texts
    answers to its fit prompts."""
    brings: ClassVar[bool] = False
    """Whether it hands the model knowledge of the concept (pictures, earlier weights, a recogniser's gradient): then
    only the same attack on a model that was never taught tells how much of a success was there before."""

    continues: ClassVar[bool] = False
    """Whether it comes through the same states, and asks the same first, where all that differs is how much it may ask."""

    def __post_init__(self) -> None:
        check_arguments(self, self.name)

    @classmethod
    def tiny(cls, concept: Concept) -> dict[str, Any]:
        """Options under which it runs on a tiny random model within seconds, which the laws try on `concept`."""
        return {}

    def holding(self, copy: Subject) -> Self:
        """The same by an attacker who holds a copy of the untouched subject; as it is where that is of no use."""
        return self

    @final
    @classmethod
    def suits(cls, subject: Subject) -> bool:
        """Whether the subject gives answers of the kind that the attack is on."""
        return cls.on in ("both", subject.answers)

    @final
    @classmethod
    def lacks_examples(cls, subject: Subject, concept: Concept) -> bool:
        """Whether it needs examples of the concept, and there are none for this subject."""
        if not cls.needs_examples:
            return False
        if subject.answers == "texts":
            return not any(p.answers for p in concept.target.fit)
        return concept.examples is None or not len(concept.examples)

    @final
    def __call__(
        self, subject: Subject, concept: Concept, budget: Budget, known: AnswerCache | None = None,
        earlier: AskedBefore | None = None,
    ) -> Attempt:  # fmt: skip
        """Attack the subject as it is; what it was goes on afterwards, also after an error.

        `known` are answers that are paid for already: they cost no picture, but count as queries. So are those of
        `earlier`, by the same attack on the same subject with less to ask, where it `continues`. Raises TypeError for
        a subject that answers otherwise, ValueError where the concept lacks examples, NothingToAsk, a ValueError, where
        it has nothing that could be asked.
        """
        if not self.suits(subject):
            raise TypeError(
                f"attack {self.name!r} is on models that answer with {self.on}, and {subject.name!r} is of family "
                f"{subject.family!r}, which answers with {subject.answers}"
            )
        if self.lacks_examples(subject, concept):
            lacking = (
                "answers to fit prompts of concept {!r}: give its prompts `answers`"
                if subject.answers == "texts"
                else "pictures of concept {!r}: give it `examples` (n, 3, h, w) in 0..1"
            )
            raise ValueError(f"attack {self.name!r} needs {lacking.format(concept.name)}, or leave the attack out")
        try:
            return self.run(AttackRun.start(self, cast(Attacked, subject), concept, budget, known, earlier))
        except NothingToAsk as problem:
            raise NothingToAsk(f"attack {self.name!r}: {problem}") from problem

    @abstractmethod
    def run(self, run: AttackRun[Attacked]) -> Attempt:
        """Ask through `run`, which counts and refuses what exceeds the budget; `trace_curve` and `best_of_n` do so."""
