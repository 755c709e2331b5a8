"""How likely a language model finds the gold answers, whether it writes them or not, and texts that are to be retained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.auditing.questions import Questions
from concept_probe.detect.answers import Continues, answer_probability, cloze_rank
from concept_probe.types import JUDGED_KINDS, RETAIN_KINDS, Kind, Prompt

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class AnswerLikelihood:
    """Of the gold answers, per test prompt of one kind."""

    probability: Float[Tensor, "p"]
    """Of all an answer's tokens together, 0..1."""
    rank: Float[Tensor, "p"]
    """1 / rank of an answer's first token among all tokens: 1 is the likeliest."""


@dataclass(frozen=True, eq=False)
class Surprisal:
    """Of texts that are to be retained, from their second word on; per test prompt of one kind."""

    nats: Float[Tensor, "p"]
    """-log probability of each text, all its tokens together."""
    tokens: Float[Tensor, "p"]
    """How many tokens that are."""


def answer_likelihoods(subject: Subject, questions: Questions) -> Mapping[Kind, AnswerLikelihood]:
    """What the subject, as it is, finds likely; nothing where answers are pictures."""
    if questions.answers != "texts" or not isinstance(subject, Continues):
        return {}
    out: dict[Kind, AnswerLikelihood] = {}
    for kind in JUDGED_KINDS:
        prompts = questions.prompts(kind)
        if prompts and all(p.answers for p in prompts):
            out[kind] = answer_likelihood(subject, prompts)
    return out


def answer_likelihood(subject: Continues, prompts: Sequence[Prompt]) -> AnswerLikelihood:
    """What the subject, as it is, makes of the answers of these prompts."""
    return AnswerLikelihood(answer_probability(subject, prompts), 1 / cloze_rank(subject, prompts))


def surprisals(subject: Subject, questions: Questions) -> Mapping[Kind, Surprisal]:
    """Of each prompt of others with its answer, to the subject as it is; nothing where answers are pictures."""
    if questions.answers != "texts" or not isinstance(subject, Continues):
        return {}
    out: dict[Kind, Surprisal] = {}
    for kind in RETAIN_KINDS:
        texts = [text_with_answer(p) for p in questions.prompts(kind)]
        if texts and all(" " in text for text in texts):
            out[kind] = surprisal(subject, texts)
    return out


def text_with_answer(prompt: Prompt) -> str:
    """The prompt and its usual answer as one text; of a chat, the user's turn alone."""
    with_answer = prompt.form == "plain" and prompt.answers
    return " ".join((prompt.text + (" " + prompt.answers[0] if with_answer else "")).split())


@torch.no_grad()
def surprisal(subject: Continues, texts: Sequence[str], *, batch: int = 32) -> Surprisal:
    """Of each text after its first word, (n,) float64."""
    parts = [text.partition(" ") for text in texts]
    found = subject.log_probs([(Prompt(head), space + rest) for head, space, rest in parts], batch=batch)
    return Surprisal(-found.total.double().cpu(), found.tokens.double().cpu())
