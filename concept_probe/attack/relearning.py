"""Teach the concept again with a few pictures, and see how little that takes (arXiv 2510.03263)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from concept_probe.attack.base import (
    Attack,
    Descent,
    ask,
    examples_of,
    label_of,
    lay_out,
    point,
    progress,
    relabelled,
    shown,
    spread,
    with_gradients,
)
from concept_probe.attack.budget import Attempt, Budget, Meter, succeeded, success_rate
from concept_probe.registry import look_up
from concept_probe.types import Concept

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Relearning(Attack):
    """Fine-tunes part of the erased subject on the attacker's pictures under the concept's fit prompts.

    Success is measured on the concept's test prompts. A random change of the same parameters, each of the
    norm that training gave it, is the control. Every byte of every parameter comes back afterwards.
    """

    part: str = "cross_attention"
    """What is trained: `cross_attention` (keys and values), `text_encoder` (all of every text encoder), or `both`."""
    points: int = 3
    """Points of the curve, the baseline (0 steps) included."""
    pictures: int = 16
    """Pictures per point and for the control, at most."""
    rate: float = 0.05
    """Adam's step, as a multiple of the root mean square of the trained parameters' entries."""
    batch: int = 8
    """Pictures per gradient step."""

    name: ClassVar[str] = "relearning"
    needs_examples: ClassVar[bool] = True

    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt:
        meter = Meter(budget)
        fit = concept.prompts("target", "fit")
        if not fit:
            raise ValueError(f"attack {self.name!r}: concept {concept.name!r} has no target prompts in its fit split")
        test = relabelled(concept.prompts("target", "test"), label_of(concept))
        steps, each = lay_out(budget, self.points, self.pictures)
        examples = examples_of(concept, budget, self.name)
        meter.use_examples(len(examples))
        parameters = trained(subject, self.part)
        generator = torch.Generator().manual_seed(self.seed)
        curve, trials, images, control = [], [], None, None
        with restored(parameters) as originals, progress() as bar:
            descent = Descent(subject, parameters, self.rate, examples, fit, self.batch, generator, meter)
            for goal in steps:
                with with_gradients(parameters):
                    done = descent.run(goal, bar)
                asker = self if done == 0 else replace(self, known={})
                seen, images = ask(asker, subject, concept, spread(test, each, self.seed), meter)
                if seen:
                    curve.append((done, point(self, seen)))
                    trials.append(seen)
                if meter.out_of_time():
                    break
            if each and curve and meter.spent().queries + each <= budget.queries and not meter.out_of_time():
                shake(parameters, originals, generator)
                seen, _ = ask(replace(self, known={}), subject, concept, spread(test, each, self.seed), meter)
                control = success_rate("random change", [succeeded(t) for t in seen])
        last = shown(self, trials[-1], images) if trials else ()
        return Attempt(
            self.name, concept.name, budget, meter.spent(), "gradient steps", tuple(curve), tuple(trials), control, last
        )


def trained(subject: Subject, part: str) -> list[nn.Parameter]:
    """The parameters that `part` names. Raises UnknownName for another part, ValueError where the subject has none."""
    roles = look_up(
        {
            "cross_attention": ("cross_key_weight", "cross_value_weight"),
            "text_encoder": (),
            "both": ("cross_key_weight", "cross_value_weight"),
        },
        part,
        "part to relearn",
    )
    parameters = [subject.parameter(site) for role in roles for site in subject.sites(role)]
    if part != "cross_attention":
        encoders = dict.fromkeys(site.component for site in subject.sites("token_embedding"))
        parameters += [p for name in encoders for p in subject.components[name].parameters()]
    unique = list({id(p): p for p in parameters}.values())
    if not unique:
        raise ValueError(f"subject {subject.name!r} has no parameter in {part!r}")
    return unique


@contextlib.contextmanager
def restored(parameters: Sequence[nn.Parameter]) -> Iterator[list[Tensor]]:
    """Copies of the parameters; on leaving, each parameter holds those bytes again, also after an error."""
    tensors = [p.data for p in parameters]
    originals = [t.clone() for t in tensors]
    try:
        yield originals
    finally:
        with torch.no_grad():
            for parameter, tensor, original in zip(parameters, tensors, originals, strict=True):
                tensor.copy_(original)
                parameter.data = tensor


@torch.no_grad()
def shake(parameters: Sequence[nn.Parameter], originals: Sequence[Tensor], generator: torch.Generator) -> None:
    """Replace what training did to each parameter by a Gaussian change of the same norm."""
    for parameter, original in zip(parameters, originals, strict=True):
        norm = torch.linalg.vector_norm((parameter - original).float())
        noise = torch.randn(original.shape, generator=generator).to(original)
        change = noise * (norm / torch.linalg.vector_norm(noise.float()).clamp_min(1e-30)).to(noise)
        parameter.copy_(original + change)
