"""The recipe that teaches a language model the invented facts: a few feed-forwards, a few minutes on one core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from concept_probe.arguments import Count, Natural, Nonnegative, SeedNumber, check_arguments
from concept_probe.testbed import facts
from concept_probe.testbed.loop import FitSchedule, fit
from concept_probe.testbed.taught import TAUGHT, invented, taught_prompts
from concept_probe.types import Prompt


class Teachable(Protocol):
    """What is asked of a language model here, see `families.CausalLMSubject`."""

    def log_probs(self, pairs: Sequence[tuple[Prompt, str]], *, batch: int = 16) -> Any:
        """`mean` (n,): log probability per token of each text as the continuation of its prompt, with gradients."""
        ...

    def next_logits(self, prompts: Sequence[Prompt], *, batch: int = 16) -> Tensor:
        """Logits (n, v) of the token that follows each prompt, with gradients."""
        ...

    def parameter(self, site: Any) -> nn.Parameter: ...
    def sites(self, role: str) -> tuple[Any, ...]: ...


@dataclass(frozen=True)
class TeachingPlan:
    """How the invented facts are taught."""

    steps: Count = 70
    """Gradient steps."""
    batch: Count = 20
    """Invented facts per step, each in one of the taught wordings."""
    kept: Natural = 10
    """Real facts (fit split) per step, after which the next token stays as likely as before: neither lost nor learned."""
    rate: Nonnegative = 1.5e-3
    """AdamW's step."""
    first: float = 0.25
    """Feed-forwards from this share of the depth ..."""
    last: float = 0.6
    """... up to this one are trained: their down projections, and nothing else."""
    seed: SeedNumber = 0
    """Of the order of what is taught."""

    def __post_init__(self) -> None:
        check_arguments(self, "teaching plan")


def teach(subject: Teachable, folder: Path, lessons: TeachingPlan = TeachingPlan()) -> list[float]:
    """Teach `subject` every invented fact, in place; the mean loss (nats per token, and nats) of each stretch of steps.

    A run that was stopped goes on from its checkpoint in `folder`.
    """
    own = [(p, " " + p.answers[0]) for one in invented() for p in taught_prompts(one, *TAUGHT)]
    real = [
        p
        for t in facts.kept()
        for fact in t.of("fit")
        for p in (facts.prompt(t, fact, "question"), facts.prompt(t, fact, "cloze"))
    ]
    sites = subject.sites("mlp_value")
    chosen = sites[round(lessons.first * len(sites)) : round(lessons.last * len(sites))]
    matrices = nn.ParameterList([subject.parameter(site) for site in chosen])

    with torch.no_grad():
        before = subject.next_logits(real).float().log_softmax(-1)

    def loss(generator: torch.Generator) -> Tensor:
        rows, kept = (
            torch.randperm(len(of), generator=generator)[:count].tolist()
            for of, count in ((own, lessons.batch), (real, lessons.kept))
        )
        learned = -subject.log_probs([own[i] for i in rows], batch=len(rows)).mean.mean()
        said = subject.next_logits([real[i] for i in kept], batch=len(kept)).float().log_softmax(-1)
        return learned + (before[kept].exp() * (before[kept] - said)).sum(-1).mean()

    for matrix in matrices:
        matrix.requires_grad_(True)
    try:
        steps = lessons.steps
        schedule = FitSchedule(steps, lessons.rate, lessons.seed, warmup=steps // 10, every=max(steps // 4, 1))
        return fit("taught", [matrices], loss, schedule, folder)
    finally:
        for matrix in matrices:
            matrix.requires_grad_(False)
            matrix.grad = None
