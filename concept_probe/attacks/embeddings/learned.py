"""What attacks share that learn something to stand before the question: a filler whose tokens are replaced."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from rich.progress import Progress
from torch import Tensor, nn

from concept_probe.attacks.attack import Attack, point
from concept_probe.attacks.budget import Attempt, Budget, Meter, lay_out
from concept_probe.attacks.embeddings.vectors import start_vectors, with_vectors
from concept_probe.attacks.examples import answers_of, of_other_facts, tested
from concept_probe.attacks.optimise import answer_loss
from concept_probe.attacks.queries import ask, askable, query_rounds
from concept_probe.detect.answers import Continues
from concept_probe.evaluation.rates import success_of
from concept_probe.families.progress import bars
from concept_probe.families.state import with_gradients
from concept_probe.types import Concept, Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

Vectors = dict[Site, nn.Parameter]
"""Per token-embedding site, what stands in the place of the filler's tokens, (L, d)."""
Go = Callable[[int, Progress], int]
"""Learn until so many steps have been made; returns how many have been."""


@dataclass(frozen=True, eq=False)
class LearnedPrefix(Attack):
    """Learns what stands before the question from answers to some facts, and asks for the others.

    What comes back was there: no fact that is asked for was shown. A random candidate is asked last, as control.
    """

    filler: str = "so so so so so so so so"
    """Words before the question whose tokens' embeddings are replaced."""
    points: int = 3
    """Points of the curve, the baseline (0 steps) included."""
    texts: int = 16
    """Texts per point and for the control, at most."""
    batch: int = 8
    """Answers per gradient step."""

    needs_examples: ClassVar[bool] = True
    learns_answers: ClassVar[bool] = True
    on: ClassVar = "texts"
    control_name: ClassVar[str]

    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt:
        """Raises TypeError for a subject that answers with pictures, ValueError where there is nothing to learn from."""
        if not isinstance(subject, Continues):
            raise TypeError(f"{self.name!r} learns from answers in words, and {subject.name!r} answers with pictures")
        meter, generator = Meter(budget), torch.Generator().manual_seed(self.seed)
        pairs = answers_of(concept, budget, self.name)
        meter.use_examples(len(pairs))
        test = behind_filler(of_other_facts(tested(self, concept), pairs), self.filler)
        own = [(p, text) for p, (_, text) in zip(behind_filler([p for p, _ in pairs], self.filler), pairs, strict=True)]
        steps, each = lay_out(budget, self.points, self.texts)
        queries = query_rounds(test, askable(self, test, each), self.seed)
        learned = start_vectors(subject, tuple(behind_filler(concept.prompts("target", "fit"), self.filler)))
        loss = answer_loss(subject, own, self.batch) if own else None
        curve, trials, control = [], [], None
        bare = replace(self, known={})  # known answers were given without a prefix
        with bars() as bar:
            with with_vectors(subject, learned), with_gradients(list(learned.values())):
                go = self.learner(subject, learned, loss, generator, meter)
                for goal in steps:
                    done = go(goal, bar)
                    seen, _ = ask(bare, subject, concept, queries, meter)
                    if seen:
                        curve.append((done, point(self, seen)))
                        trials.append(seen)
                    if meter.out_of_time():
                        break
            if curve and meter.spent().queries + len(queries) <= budget.queries and not meter.out_of_time():
                with with_vectors(subject, self.random(subject, learned, generator)):
                    seen, _ = ask(bare, subject, concept, queries, meter)
                control = success_of(self.control_name, seen)
        return Attempt(
            self.name, concept.name, budget, meter.spent(), "gradient steps", tuple(curve), tuple(trials), control
        )

    @abstractmethod
    def learner(
        self, subject: Subject, learned: Vectors, loss: Callable[[torch.Generator], Tensor] | None,
        generator: torch.Generator, meter: Meter,
    ) -> Go:  # fmt: skip
        """How `learned` is changed, in place, while it stands before every question; without a loss it is not."""

    @abstractmethod
    def random(self, subject: Subject, learned: Vectors, generator: torch.Generator) -> Vectors:
        """A random candidate of the same kind."""


def behind_filler(prompts: Sequence[Prompt], filler: str) -> tuple[Prompt, ...]:
    """The prompts behind the filler, which is their subject, so that its tokens are found."""
    return tuple(replace(p, text=f"{filler} {p.text}", subject=filler) for p in prompts)
