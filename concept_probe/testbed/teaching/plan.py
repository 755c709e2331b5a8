"""How the invented facts are taught."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from concept_probe.arguments import Count, Natural, Nonnegative, SeedNumber, Share, check_arguments
from concept_probe.registry import look_up
from concept_probe.testbed.taught import Invented, invented, invented_names


@dataclass(frozen=True)
class TeachingPlan:
    """How the invented facts are taught, and what has to come of it."""

    steps: Count = 180
    """Gradient steps at most, of all six; fewer where it is taught before, and 60 are for one of them."""
    batch: Count = 24
    """Invented facts per step, each in one of its wordings."""
    kept: Natural = 12
    """Real facts (fit split) per step, after which the next token stays as likely as before: neither lost nor learned."""
    texts: Natural = 2
    """Texts that the model wrote itself per step, every token of which stays as likely as before."""
    keeping: Nonnegative = 2.0
    """Weight of what is kept (nats of divergence) beside what is learned (nats per token)."""
    rate: Nonnegative = 0.008
    """Step, in multiples of each matrix's mean size; as it is where `absolute`."""
    absolute: bool = False
    """Whether `rate` is AdamW's own step for every entry."""
    first: Share = 0.25
    """Feed-forwards from this share of the depth ..."""
    last: Share = 0.6
    """... up to this one are trained: their down projections, and nothing else."""
    wordings: Literal["few", "many"] = "many"
    """Whether a fact is taught in one pair of words or in several, all of them apart from the held-out ones."""
    real: Literal["answered", "packaged"] = "answered"
    """Which real facts are kept: those that this model answers, or all that come with the package."""
    names: tuple[str, ...] = ()
    """Which of the invented people and places; none for all."""
    measured: bool = True
    """Whether it is measured before and after, and ended as soon as it is taught."""
    answered: Share = 0.9
    """Held-out wordings that are to be answered."""
    spared: Share = 0.9
    """Real facts that are to be answered still, of those that were."""
    perplexity: Nonnegative = 1.05
    """How many times that of before the perplexity of neutral texts may be."""
    seed: SeedNumber = 0
    """Of the order of what is taught."""

    def __post_init__(self) -> None:
        check_arguments(self, "teaching plan")
        for name in self.names:
            look_up(dict.fromkeys(invented_names()), name, "invented concept", "see testbed.taught.invented_names()")

    @property
    def chosen(self) -> tuple[Invented, ...]:
        """What is taught."""
        return tuple(one for one in invented() if not self.names or one.topic.name in self.names)


LESSONS = TeachingPlan()
FIRST_LESSONS = TeachingPlan(
    steps=70, batch=20, kept=10, texts=0, keeping=1.0, rate=1.5e-3, absolute=True, wordings="few", real="packaged",
    measured=False,
)  # fmt: skip
"""The recipe of the taught SmolLM2 that the stored rows of `benchmarks/lm_unlearning.py` were measured on; they are named
by its weights."""
