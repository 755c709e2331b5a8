"""How likely a language model finds the gold answers, whether it writes them or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from concept_probe.audit.arms import KEEPS, SHOWS, Plan
from concept_probe.detect.answers import Continues, answer_probability, cloze_rank
from concept_probe.types import Kind

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Likely:
    """Per test prompt of one kind."""

    probability: Float[Tensor, "p"]
    """Of the gold answers, all their tokens together, 0..1."""
    rank: Float[Tensor, "p"]
    """1 / rank of an answer's first token among all tokens: 1 is the likeliest."""


def likelihoods(subject: Subject, plan: Plan) -> Mapping[Kind, Likely]:
    """What the subject, as it is, finds likely; nothing where answers are pictures."""
    if not plan.reads or not isinstance(subject, Continues):
        return {}
    kinds: list[Kind] = [k for k in (*SHOWS, *KEEPS) if plan.prompts(k) and all(p.answers for p in plan.prompts(k))]
    return {
        kind: Likely(answer_probability(subject, plan.prompts(kind)), 1 / cloze_rank(subject, plan.prompts(kind)))
        for kind in kinds
    }
