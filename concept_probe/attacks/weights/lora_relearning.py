"""Relearning with low-rank adapters, as in MemoRa (arXiv 2510.03263): what a few examples and a few directions bring back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from concept_probe.arguments import Count
from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt
from concept_probe.attacks.curve import Candidate, CurvePlan, trace_curve
from concept_probe.attacks.optimise import BudgetedAdam
from concept_probe.attacks.weights.finetuning_data import finetuning_data
from concept_probe.erasers.training.trainable import LowRankAdapters
from concept_probe.families import CausalLMSubject, DiffusionSubject
from concept_probe.families.progress import bars
from concept_probe.families.state import swapped


@dataclass(frozen=True, eq=False)
class LoraRelearning(Attack[DiffusionSubject | CausalLMSubject]):
    """Trains adapters on the attacker's pictures, or answers, under the concept's fit prompts; the weights stay as they are.

    They stand beside cross-attention's keys and values, or of a language model beside the down projections of its
    feed-forwards; such a model is tested on facts that were not taught again. The adapters act before any tap, so a
    guard at the same place sees what they give. Adapters of the same norms in random directions are the control.
    """

    rank: Count = 4
    """Columns of each adapter."""
    points: Count = 3
    """Points of the curve, the baseline (0 steps) included."""
    pictures: Count = 16
    """Pictures, or texts, per point and for the control, at most."""
    rate: float | None = None
    """Adam's step: of u as a multiple of the root mean square of the weight's entries, of v as it is. None: 0.05, or of
    a language model 0.003."""
    batch: Count = 8
    """Pictures, or answers, per gradient step."""

    name = "lora_relearning"
    on = "both"
    needs_examples = True
    brings = True
    continues = True

    def run(self, run: AttackRun[DiffusionSubject | CausalLMSubject]) -> Attempt:
        subject, writes = run.subject, run.subject.answers == "texts"
        data = finetuning_data(run, points=self.points, queries=self.pictures, batch=self.batch)
        roles = ("mlp_value",) if writes else ("cross_key_weight", "cross_value_weight")
        adapters = LowRankAdapters(
            subject, [s for role in roles for s in subject.sites(subject.counterpart(role))], self.rank, self.seed
        )
        parameters = [p for pair in adapters.pairs.values() for p in pair]
        rate = self.rate if self.rate is not None else 0.003 if writes else 0.05
        descent = BudgetedAdam(data.loss, parameters, rate, run.generator, run.meter, adapters.groups(rate))
        with bars() as bar:

            def reach(goal: int) -> int:
                with adapters.on():
                    return descent.run(goal, bar)

            plan = CurvePlan(
                data.steps, "gradient steps", reach,
                lambda done: Candidate(data.queries, adapters.on() if done else None),
                lambda: Candidate(data.queries, at_random(adapters, run.generator)), "random adapters",
            )  # fmt: skip
            return trace_curve(run, plan)


@contextlib.contextmanager
def at_random(adapters: LowRankAdapters, generator: torch.Generator) -> Iterator[None]:
    """The adapters with every change u vᵀ replaced by one of the same norm and rank in a random direction."""
    pairs: Mapping[str, tuple[nn.Parameter, nn.Parameter]] = adapters.pairs
    random: list[tuple[nn.Parameter, Tensor]] = []
    for u, v in pairs.values():
        left, right = (torch.randn(x.shape, generator=generator).to(x.data) for x in (u, v))
        norm = product_norm(u.data, v.data) / product_norm(left, right).clamp_min(1e-30)
        random += [(u, left * norm), (v, right)]
    with swapped(random), adapters.on():
        yield


def product_norm(u: Tensor, v: Tensor) -> Tensor:
    """Frobenius norm of u vᵀ, without forming it: √ tr((uᵀu)(vᵀv))."""
    return ((u.mT @ u) * (v.mT @ v)).sum().clamp_min(0).sqrt()
