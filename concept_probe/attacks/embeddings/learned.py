"""What attacks share that learn vectors in the place of tokens: the curve along their steps, and prefixes of a question."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rich.progress import Progress

from concept_probe.arguments import Count
from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt
from concept_probe.attacks.budget import curve_points, lay_out
from concept_probe.attacks.curve import Candidate, CurvePlan, trace_curve
from concept_probe.attacks.embeddings.vectors import Vectors, start_vectors, with_vectors
from concept_probe.attacks.examples import answered_tests, answers_of, of_other_facts
from concept_probe.attacks.optimise import answer_loss
from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.families import CausalLMSubject
from concept_probe.families.progress import bars
from concept_probe.families.state import with_gradients
from concept_probe.types import Concept, Prompt, Query

Learn = Callable[[int, Progress], int]
"""Learn until so many steps have been made; returns how many have been."""


@dataclass(frozen=True, eq=False)
class Learning:
    """Vectors, and how they are learned."""

    vectors: Vectors
    """They start as what they take the place of, and change in place."""
    learn: Learn
    """While the vectors are in their place, with gradients."""
    random: Callable[[], Vectors]
    """A random candidate of the same kind."""
    control_name: str


def trace_learning(run: AttackRun[Any], steps: Sequence[int], queries: Sequence[Query], learning: Learning) -> Attempt:
    """Ask with the vectors in their place after so many steps each, then with random ones."""
    subject, vectors = run.subject, learning.vectors
    with bars() as bar:

        def reach(goal: int) -> int:
            with with_vectors(subject, vectors), with_gradients(list(vectors.values())):
                return learning.learn(goal, bar)

        plan = CurvePlan(
            steps, "gradient steps", reach, lambda _: Candidate(queries, with_vectors(subject, vectors)),
            lambda: Candidate(queries, with_vectors(subject, learning.random())), learning.control_name,
        )  # fmt: skip
        return trace_curve(run, plan)


@dataclass(frozen=True, eq=False)
class LearnedPrefix(Attack[CausalLMSubject]):
    """Learns what stands before the question from answers to some facts, and asks for the others.

    What comes back was there: no fact that is asked for was shown. A random candidate is asked last, as control.
    """

    filler: str = "so so so so so so so so"
    """Words before the question whose tokens' embeddings are replaced."""
    points: Count = 3
    """Points of the curve, the baseline (0 steps) included."""
    texts: Count = 16
    """Texts per point and for the control, at most."""
    batch: Count = 8
    """Answers per gradient step."""

    on = "texts"
    needs_examples = True
    control_name: ClassVar[str]

    @classmethod
    def tiny(cls, concept: Concept) -> dict[str, Any]:
        return {"filler": "so sun"}

    def run(self, run: AttackRun[CausalLMSubject]) -> Attempt:
        subject, concept = run.subject, run.concept
        pairs = answers_of(concept, run.budget)
        run.meter.use_examples(len(pairs))
        test = behind_filler(of_other_facts(answered_tests(concept), pairs), self.filler)
        own = [(p, text) for p, (_, text) in zip(behind_filler([p for p, _ in pairs], self.filler), pairs, strict=True)]
        steps, each = lay_out(run.budget, curve_points(run.budget.gradient_steps, self.points), self.texts)
        queries = run.queries(test, each)
        learned = start_vectors(subject, tuple(behind_filler(concept.prompts("target", "fit"), self.filler)))
        learn = self.learner(run, learned, answer_loss(subject, own, self.batch))
        learning = Learning(learned, learn, lambda: self.random(run, learned), self.control_name)
        return trace_learning(run, steps, queries, learning)

    @abstractmethod
    def learner(self, run: AttackRun[CausalLMSubject], learned: Vectors, loss: DrawnLoss | None) -> Learn:
        """How `learned` is changed, in place, while it stands before every question; without a loss it is not."""

    @abstractmethod
    def random(self, run: AttackRun[CausalLMSubject], learned: Vectors) -> Vectors:
        """A random candidate of the same kind."""


def behind_filler(prompts: Sequence[Prompt], filler: str) -> tuple[Prompt, ...]:
    """The prompts behind the filler, which is their subject, so that its tokens are found."""
    return tuple(replace(p, text=f"{filler} {p.text}", subject=filler) for p in prompts)
