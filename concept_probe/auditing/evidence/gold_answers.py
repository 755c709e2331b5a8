"""How likely a language model finds the gold answers, whether it writes them or not, and texts that are to be kept."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.auditing.arm import Plan
from concept_probe.detect.answers import Continues, answer_probability, cloze_rank
from concept_probe.types import JUDGED_KINDS, RETAIN_KINDS, Kind, Prompt

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
    kinds: list[Kind] = [k for k in JUDGED_KINDS if plan.prompts(k) and all(p.answers for p in plan.prompts(k))]
    return {kind: likely(subject, plan.prompts(kind)) for kind in kinds}


def likely(subject: Continues, prompts: Sequence[Prompt]) -> Likely:
    """What the subject, as it is, makes of the answers of these prompts."""
    return Likely(answer_probability(subject, prompts), 1 / cloze_rank(subject, prompts))


@dataclass(frozen=True, eq=False)
class Reading:
    """Texts that are to be kept, read from their second word on. Per test prompt of one kind."""

    nats: Float[Tensor, "p"]
    """How surprising each text is, all its tokens together: -log probability."""
    tokens: Float[Tensor, "p"]
    """How many tokens that are."""


def readings(subject: Subject, plan: Plan) -> Mapping[Kind, Reading]:
    """What the subject, as it is, makes of each kept prompt with its answer; nothing where answers are pictures."""
    if not plan.reads or not isinstance(subject, Continues):
        return {}
    out: dict[Kind, Reading] = {}
    for kind in RETAIN_KINDS:
        texts = [text_of(p) for p in plan.prompts(kind)]
        if texts and all(" " in text for text in texts):
            out[kind] = Reading(*surprise(subject, texts))
    return out


def text_of(prompt: Prompt) -> str:
    """The prompt and its usual answer as one text; of a chat, the user's turn alone."""
    answered = prompt.form == "plain" and prompt.answers
    return " ".join((prompt.text + (" " + prompt.answers[0] if answered else "")).split())


def shuffled(text: str) -> str:
    """The words of a text in an order of chance, always the same."""
    words = text.split()
    random.Random(zlib.crc32(text.encode())).shuffle(words)
    return " ".join(words)


@torch.no_grad()
def surprise(subject: Continues, texts: Sequence[str], *, batch: int = 32) -> tuple[Tensor, Tensor]:
    """(n,) -log probability of each text after its first word, in nats, and (n,) how many tokens that is; float64."""
    parts = [text.partition(" ") for text in texts]
    found = subject.log_probs([(Prompt(head), space + rest) for head, space, rest in parts], batch=batch)
    return -found.total.double().cpu(), found.tokens.double().cpu()
