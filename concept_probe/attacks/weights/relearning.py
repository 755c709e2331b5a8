"""Teach the concept again with a few pictures or answers, and see how little that takes (arXiv 2510.03263)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from concept_probe.arguments import Count
from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt
from concept_probe.attacks.curve import Candidate, CurvePlan, trace_curve
from concept_probe.attacks.optimise import BudgetedAdam
from concept_probe.attacks.weights.finetuning_data import finetuning_data
from concept_probe.attacks.weights.parameters import random_change
from concept_probe.families import CausalLMSubject, DiffusionSubject, Subject
from concept_probe.families.progress import bars
from concept_probe.families.state import swapped, with_gradients

RelearnedPart = Literal["cross_attention", "text_encoder", "both", "mlp_value"]
ROLES_OF_PARTS: Mapping[RelearnedPart, tuple[str, ...]] = {
    "cross_attention": ("cross_key_weight", "cross_value_weight"),
    "text_encoder": (),
    "both": ("cross_key_weight", "cross_value_weight"),
    "mlp_value": ("mlp_value",),
}
"""Matrices of each part; all of the text encoders come with `text_encoder` and `both`."""


@dataclass(frozen=True, eq=False)
class Relearning(Attack[DiffusionSubject | CausalLMSubject]):
    """Fine-tunes part of the erased subject on the attacker's pictures, or answers, under the concept's fit prompts.

    Success is measured on the concept's test prompts; of a language model on those of facts that were not taught
    again, so that what comes back was there. A random change of the same parameters, each of the norm that training
    gave it, is the control. Every byte of every parameter comes back afterwards.
    """

    part: RelearnedPart | None = None
    """What is trained: `cross_attention` (keys and values), `text_encoder` (all of every text encoder), `both`, or
    `mlp_value` (down projections of feed-forwards). None: cross attention, or of a language model the last."""
    points: Count = 3
    """Points of the curve, the baseline (0 steps) included."""
    pictures: Count = 16
    """Pictures, or texts, per point and for the control, at most."""
    rate: float | None = None
    """Adam's step, as a multiple of the root mean square of the trained parameters' entries. None: 0.05, or of a
    language model 0.001: at ten times that, lessons on a few facts drive out the others."""
    batch: Count = 8
    """Pictures, or answers, per gradient step."""

    name = "relearning"
    on = "both"
    needs_examples = True
    brings = True
    continues = True

    def run(self, run: AttackRun[DiffusionSubject | CausalLMSubject]) -> Attempt:
        writes = run.subject.answers == "texts"
        data = finetuning_data(run, points=self.points, queries=self.pictures, batch=self.batch)
        parameters = parameters_of(run.subject, self.part or ("mlp_value" if writes else "cross_attention"))
        rate = self.rate if self.rate is not None else 0.001 if writes else 0.05
        descent = BudgetedAdam(data.loss, parameters, rate, run.generator, run.meter)
        trained = [(p, p.data.clone()) for p in parameters]

        def at_random() -> Iterator[tuple[nn.Parameter, Tensor]]:
            for parameter, tensor in trained:
                yield parameter, random_change(parameter.detach(), tensor, run.generator)

        with bars() as bar:

            def reach(goal: int) -> int:
                with swapped(trained), with_gradients(parameters):
                    return descent.run(goal, bar)

            plan = CurvePlan(
                data.steps, "gradient steps", reach,
                lambda done: Candidate(data.queries, swapped(trained) if done else None),
                lambda: Candidate(data.queries, swapped(at_random())), "random change",
            )  # fmt: skip
            return trace_curve(run, plan)


def parameters_of(subject: Subject, part: RelearnedPart) -> list[nn.Parameter]:
    """The parameters that `part` names. Raises ValueError where the subject has none."""
    roles = [subject.counterpart(role) for role in ROLES_OF_PARTS[part]]
    parameters = [subject.parameter(site) for role in roles if role in subject.roles() for site in subject.sites(role)]
    if part in ("text_encoder", "both"):
        encoders = dict.fromkeys(site.component for site in subject.sites("token_embedding"))
        parameters += [p for name in encoders for p in subject.components[name].parameters()]
    unique = list({id(p): p for p in parameters}.values())
    if not unique:
        raise ValueError(f"subject {subject.name!r} has no parameter in {part!r}")
    return unique
