"""Teach the concept again with a few pictures or answers, and see how little that takes (arXiv 2510.03263)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from concept_probe.attacks.attack import Attack, point
from concept_probe.attacks.budget import Attempt, Budget, Meter
from concept_probe.attacks.optimise import BudgetedAdam
from concept_probe.attacks.pictures import shown_pictures
from concept_probe.attacks.queries import ask
from concept_probe.attacks.weights.finetuning_data import finetuning_data
from concept_probe.attacks.weights.parameters import restoring, shake
from concept_probe.detect.answers import Continues
from concept_probe.evaluation.rates import success_of
from concept_probe.families.progress import bars
from concept_probe.families.state import with_gradients
from concept_probe.registry import look_up
from concept_probe.types import Concept

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Relearning(Attack):
    """Fine-tunes part of the erased subject on the attacker's pictures, or answers, under the concept's fit prompts.

    Success is measured on the concept's test prompts; of a language model on those of facts that were not taught
    again, so that what comes back was there. A random change of the same parameters, each of the norm that training
    gave it, is the control. Every byte of every parameter comes back afterwards.
    """

    part: str | None = None
    """What is trained: `cross_attention` (keys and values), `text_encoder` (all of every text encoder), `both`, or
    `mlp_value` (down projections of feed-forwards). None: cross attention, or of a language model the last."""
    points: int = 3
    """Points of the curve, the baseline (0 steps) included."""
    pictures: int = 16
    """Pictures, or texts, per point and for the control, at most."""
    rate: float | None = None
    """Adam's step, as a multiple of the root mean square of the trained parameters' entries. None: 0.05, or of a
    language model 0.001: at ten times that, lessons on a few facts drive out the others."""
    batch: int = 8
    """Pictures, or answers, per gradient step."""

    name: ClassVar[str] = "relearning"
    needs_examples: ClassVar[bool] = True
    brings: ClassVar[bool] = True
    learns_answers: ClassVar[bool] = True

    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt:
        meter = Meter(budget)
        lessons = finetuning_data(
            self, subject, concept, meter, points=self.points, pictures=self.pictures, batch=self.batch
        )
        writes = isinstance(subject, Continues)
        parameters = parameters_of(subject, self.part or ("mlp_value" if writes else "cross_attention"))
        rate = self.rate if self.rate is not None else 0.001 if writes else 0.05
        generator = torch.Generator().manual_seed(self.seed)
        curve, trials, images, control = [], [], None, None
        with restoring(parameters) as originals, bars() as bar:
            descent = BudgetedAdam(lessons.loss, parameters, rate, generator, meter)
            for goal in lessons.steps:
                with with_gradients(parameters):
                    done = descent.run(goal, bar)
                asker = self if done == 0 else replace(self, known={})
                seen, images = ask(asker, subject, concept, lessons.queries, meter)
                if seen:
                    curve.append((done, point(self, seen)))
                    trials.append(seen)
                if meter.out_of_time():
                    break
            each = len(lessons.queries)
            if each and curve and meter.spent().queries + each <= budget.queries and not meter.out_of_time():
                shake(parameters, originals, generator)
                seen, _ = ask(replace(self, known={}), subject, concept, lessons.queries, meter)
                control = success_of("random change", seen)
        last = shown_pictures(self, trials[-1], images) if trials else ()
        return Attempt(
            self.name, concept.name, budget, meter.spent(), "gradient steps", tuple(curve), tuple(trials), control, last
        )


def parameters_of(subject: Subject, part: str) -> list[nn.Parameter]:
    """The parameters that `part` names. Raises UnknownName for another part, ValueError where the subject has none."""
    roles = look_up(
        {
            "cross_attention": ("cross_key_weight", "cross_value_weight"),
            "text_encoder": (),
            "both": ("cross_key_weight", "cross_value_weight"),
            "mlp_value": ("mlp_value",),
        },
        part,
        "part to relearn",
    )
    known = subject.roles()
    parameters = [subject.parameter(site) for role in roles if role in known for site in subject.sites(role)]
    if part in ("text_encoder", "both"):
        encoders = dict.fromkeys(site.component for site in subject.sites("token_embedding"))
        parameters += [p for name in encoders for p in subject.components[name].parameters()]
    unique = list({id(p): p for p in parameters}.values())
    if not unique:
        raise ValueError(f"subject {subject.name!r} has no parameter in {part!r}")
    return unique
