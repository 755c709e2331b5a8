"""Soft prefix: vectors before the question, learned where no token need stand (arXiv 2402.09063)."""

from __future__ import annotations

from dataclasses import dataclass

from concept_probe.attacks.attempt import AttackRun
from concept_probe.attacks.embeddings.learned import Learn, LearnedPrefix
from concept_probe.attacks.embeddings.vectors import Vectors, random_like
from concept_probe.attacks.optimise import BudgetedAdam
from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.families import CausalLMSubject


@dataclass(frozen=True, eq=False)
class SoftPrefix(LearnedPrefix):
    """Descends the negative log likelihood of answers to some facts, in the embeddings of a filler before the question.

    Tested on other facts. Random vectors of the same norms are the control.
    """

    rate: float = 0.3
    """Adam's step, as a multiple of the root mean square of the embeddings' entries."""

    name = "soft_prefix"
    control_name = "random vectors"

    def learner(self, run: AttackRun[CausalLMSubject], learned: Vectors, loss: DrawnLoss | None) -> Learn:
        return BudgetedAdam(loss, list(learned.values()), self.rate, run.generator, run.meter).run

    def random(self, run: AttackRun[CausalLMSubject], learned: Vectors) -> Vectors:
        return random_like(learned, run.generator)
