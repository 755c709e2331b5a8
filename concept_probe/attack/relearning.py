"""Teach the concept again with a few pictures or answers, and see how little that takes (arXiv 2510.03263)."""

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
    Loss,
    NothingToAsk,
    ask,
    denoising,
    distinct,
    examples_of,
    label_of,
    lay_out,
    point,
    relabelled,
    shown,
    spread,
    with_gradients,
)
from concept_probe.attack.budget import Attempt, Budget, Meter, succeeded, success_rate
from concept_probe.detect.answers import Continues, continuation
from concept_probe.families.progress import bars
from concept_probe.registry import look_up
from concept_probe.types import Concept, Prompt

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
        fit = concept.prompts("target", "fit")
        if not fit:
            raise ValueError(f"attack {self.name!r}: concept {concept.name!r} has no target prompts in its fit split")
        test = relabelled(concept.prompts("target", "test"), label_of(concept))
        steps, each = lay_out(budget, self.points, self.pictures)
        writes = isinstance(subject, Continues)
        if writes:
            examples = answers_of(concept, budget, self.name)
            test = of_other_facts(test, examples)
            loss = likelihood(subject, examples, self.batch) if examples else None
        else:
            examples = examples_of(concept, budget, self.name)
            loss = denoising(subject, examples, fit, self.batch)
        meter.use_examples(len(examples))
        each = distinct(self, test, each)
        parameters = trained(subject, self.part or ("mlp_value" if writes else "cross_attention"))
        rate = self.rate if self.rate is not None else 0.001 if writes else 0.05
        generator = torch.Generator().manual_seed(self.seed)
        curve, trials, images, control = [], [], None, None
        with restored(parameters) as originals, bars() as bar:
            descent = Descent(loss, parameters, rate, generator, meter)
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


def answers_of(concept: Concept, budget: Budget, attack: str) -> list[tuple[Prompt, str]]:
    """The fit prompts with answers that the attacker may use, at most `budget.examples`; in their order.

    Raises ValueError where there are none.
    """
    pairs = [(p, continuation(p, p.answers[0])) for p in concept.prompts("target", "fit") if p.answers]
    if not pairs:
        raise ValueError(
            f"attack {attack!r} needs answers to fit prompts of {concept.name!r}: give its prompts `answers`, or leave "
            "the attack out"
        )
    return pairs[: budget.examples]


def of_other_facts(test: Sequence[Prompt], taught: Sequence[tuple[Prompt, str]]) -> tuple[Prompt, ...]:
    """The test prompts that ask for none of the facts that are taught again.

    Raises NothingToAsk, a ValueError, where none is left: nothing could be told from what was taught just now.
    """
    facts = {p.fact for p, _ in taught if p.fact is not None}
    left = tuple(p for p in test if p.fact not in facts)
    if not left:
        raise NothingToAsk(
            f"all {len(test)} test prompts ask for facts that would be taught again ({len(taught)} examples); lower the "
            "budget's `examples`"
        )
    return left


def likelihood(subject: Continues, pairs: Sequence[tuple[Prompt, str]], batch: int) -> Loss:
    """Negative log likelihood per token of answers, a batch of them drawn each time."""

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pairs), (batch,), generator=generator).tolist()
        return -subject.log_probs([pairs[i] for i in rows], batch=batch).mean.mean()

    return loss


def trained(subject: Subject, part: str) -> list[nn.Parameter]:
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
