"""What every attack is: options that are called with a subject, a concept and a budget, and a declaration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from concept_probe.attacks.budget import Attempt, Budget
from concept_probe.detect.answers import Continues
from concept_probe.evaluation.rates import success_of
from concept_probe.types import Concept, Judge, Query, Sampling, Score, Trial

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Attack(ABC):
    """Tries to bring a concept back within a budget.

    It is run with the erasure on, and asks of nothing else: an attack on an intervention is an attack
    on a model that has the intervention.

    >>> with erasure.on(subject):
    ...     attempt = ATTACKS["relearning"](recogniser)(subject, concept, Budget(gradient_steps=60))
    """

    recogniser: Judge
    """Says whether an answer shows the concept; its labels must hold the label of the concept's prompts."""
    sampling: Sampling = field(default_factory=Sampling)
    """How pictures, or texts, are made."""
    seed: int = 0
    """Of everything that the attack draws; the noise of its pictures starts from it too."""
    known: Mapping[Query, Trial] = field(default_factory=dict, repr=False)
    """Answers of the subject, as it is, that are paid for already: they cost no picture, but count as queries."""

    name: ClassVar[str]
    needs_examples: ClassVar[bool]
    """Whether it can do anything without `concept.examples`."""
    brings: ClassVar[bool] = False
    """Whether it hands the model knowledge of the concept (pictures, earlier weights, a recogniser's gradient): then
    only the same attack on a model that was never taught tells how much of a success was there before."""
    learns_answers: ClassVar[bool] = False
    """Whether answers to the concept's fit prompts are examples too."""
    on: ClassVar[Literal["pictures", "texts", "both"]] = "both"
    """What it can attack: subjects that answer with pictures, with texts, or either."""

    @abstractmethod
    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt: ...


def lacks_examples(attack: Attack, concept: Concept) -> bool:
    """Whether the attack needs examples of the concept, and there are none."""
    if not attack.needs_examples or (concept.examples is not None and len(concept.examples)):
        return False
    return not (attack.learns_answers and any(p.answers for p in concept.target.fit))


def suits(attack: Attack | type[Attack], subject: Subject) -> bool:
    """Whether the subject gives answers of the kind that the attack is on."""
    return attack.on in ("both", "texts" if isinstance(subject, Continues) else "pictures")


def point(attack: Attack, trials: Sequence[Trial]) -> Score:
    """Success in one set of trials."""
    return success_of(attack.name, trials)
