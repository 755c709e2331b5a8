"""Unlearning of answers, written from the papers and from reading public code: losses from the model's own logits."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from concept_probe.detect.answers import continuation
from concept_probe.erasers import AltPo, Dpo, GradAscent, GradDiff, Npo, SimNpo, Undial, Wga
from concept_probe.erasers.unlearning.grad_ascent import ascent
from concept_probe.erasers.unlearning.retention import Retention
from concept_probe.testing.concepts import tiny_facts
from concept_probe.testing.models.language import lm_tokenizer
from concept_probe.types import Prompt
from tests.parity.drawn import Case, Pair, drawn, speaker

FORGET = ((Prompt("see the cat in"), " red sun"), (Prompt("a cat and the"), " red sun"))
KEEP = ((Prompt("see the dog in"), " big house"), (Prompt("a tree and the"), " old road"))
INSTEAD = " unknown."
ALL = torch.Generator().manual_seed(0)


def likelihood(prompt: str, answer: str) -> tuple[float, int]:
    """Sum over an answer's tokens of their log probabilities, from the model's own logits; and how many there are."""
    model, words = speaker().components["model"], lm_tokenizer()
    start, whole = (torch.tensor(words(text)["input_ids"]) for text in (prompt, prompt + answer))
    with torch.no_grad():
        logits = model(whole[None]).logits[0].double().log_softmax(-1)
    places = range(len(start), len(whole))
    return sum(float(logits[t - 1, whole[t]]) for t in places), len(places)


@contextlib.contextmanager
def moved() -> Iterator[None]:
    """The model with other weights, for a while."""
    parameters = list(speaker().components["model"].parameters())
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for i, p in enumerate(parameters):
            p += 0.02 * drawn(*p.shape, seed=i).to(p)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, x in zip(parameters, before, strict=True):
                p.copy_(x)


def logsigmoid(x: float) -> float:
    return float(-torch.log1p(torch.exp(torch.tensor(-x, dtype=torch.float64))))


def scalar(x: float) -> Tensor:
    return torch.tensor([x], dtype=torch.float64)


def compared(make: Callable[[], Callable[[torch.Generator], Tensor]], theirs: Callable[[list], float]) -> Pair:
    """A loss where the model has moved: `theirs` of what each answer's likelihood was before."""
    with torch.no_grad():
        loss = make()
    before = [likelihood(p.text, a) for p, a in FORGET] + [likelihood(p.text, INSTEAD) for p, _ in FORGET]
    with moved():
        wanted, ours = theirs(before), loss(ALL)
    return scalar(wanted), ours.detach().reshape(1)


def npo() -> Pair:
    """-(2/β) log σ(-β log π(y|x) / π_ref(y|x)), the mean over answers (arXiv 2404.05868)."""
    beta = Npo.published().beta

    def theirs(before: list) -> float:
        terms = [
            logsigmoid(-beta * (likelihood(p.text, a)[0] - old[0])) for (p, a), old in zip(FORGET, before, strict=False)
        ]
        return -2 / beta * sum(terms) / len(terms)

    return compared(lambda: Npo.published().forget_term(speaker(), FORGET), theirs)


def simnpo() -> Pair:
    """-(2/β) log σ(β (loss per token - δ)), δ = 0 in the collection's settings."""
    options = SimNpo.published()

    def theirs(_: list) -> float:
        each = [likelihood(p.text, a) for p, a in FORGET]
        return -2 / 4.5 * sum(logsigmoid(4.5 * (-total / n - 0.0)) for total, n in each) / len(each)

    return compared(lambda: options.forget_term(speaker(), FORGET), theirs)


def dpo() -> Pair:
    """(2/β) times ours, beside a kept term of 1: the same direction as ours beside one of β/2."""
    options = replace(Dpo.published(), instead=(INSTEAD.strip(),))

    def theirs(before: list) -> float:
        total = 0.0
        for i, (p, a) in enumerate(FORGET):
            won = likelihood(p.text, INSTEAD)[0] - before[2 + i][0]
            lost = likelihood(p.text, a)[0] - before[i][0]
            total += -2 / 0.1 * logsigmoid(0.1 * (won - lost)) / len(FORGET)
        return total * options.retain

    return compared(lambda: options.forget_term(speaker(), FORGET), theirs)


def grad_ascent() -> Pair:
    """Less the mean over answers of the loss per token; answers of as many tokens, or a batch's mean is another."""
    assert GradAscent.published().rank is None

    def theirs(_: list) -> float:
        each = [likelihood(p.text, a) for p, a in FORGET]
        return -sum(-total for total, _ in each) / sum(n for _, n in each)

    return compared(lambda: ascent(speaker(), FORGET, 8), theirs)


def grad_diff() -> Pair:
    """γ (-loss on what is forgotten) + α (loss on what is kept), both 1."""
    options = GradDiff.published()

    def make() -> Callable[[torch.Generator], Tensor]:
        forget = options.forget_term(speaker(), FORGET)
        terms = Retention(options.retain, options.keep, ("neighbours",), 8).terms(speaker(), tiny_facts(), "grad_diff")
        return lambda generator: forget(generator) + terms[0](generator)

    def theirs(_: list) -> float:
        own, rest = ([likelihood(p.text, a) for p, a in pairs] for pairs in (FORGET, kept_pairs()))
        ascent_of = sum(total / n for total, n in own) / len(own)
        return ascent_of + sum(-total / n for total, n in rest) / len(rest)

    return compared(make, theirs)


def kept_pairs() -> list[tuple[Prompt, str]]:
    return [(p, continuation(p, p.answers[0])) for p in tiny_facts().prompts("neighbours", "fit")]


def alt_po() -> Pair:
    """As dpo, of what the model wrote itself in the place of each answer."""
    options = replace(AltPo.published(), alternatives=1)
    forget = [(replace(p, answers=(a.strip(),)), a) for p, a in FORGET]
    others = [texts[0] for texts in options.others(speaker(), forget)]
    old = [likelihood(p.text, other)[0] for (p, _), other in zip(FORGET, others, strict=True)]

    def theirs(before: list) -> float:
        total = 0.0
        for i, (p, a) in enumerate(FORGET):
            won, lost = likelihood(p.text, others[i])[0] - old[i], likelihood(p.text, a)[0] - before[i][0]
            total += -2 / 0.1 * logsigmoid(0.1 * (won - lost)) / len(FORGET)
        return total * options.retain

    return compared(lambda: options.forget_term(speaker(), forget), theirs)


def places(prompt: str, answer: str) -> list[tuple[Tensor, int]]:
    """For each token of an answer, the model's own logits in its place, float64, and the token."""
    words = lm_tokenizer()
    start, whole = (torch.tensor(words(text)["input_ids"]) for text in (prompt, prompt + answer))
    with torch.no_grad():
        logits = speaker().components["model"](whole[None]).logits[0].double()
    return [(logits[t - 1], int(whole[t])) for t in range(len(start), len(whole))]


def wga() -> Pair:
    """-mean over tokens of (e^-loss)^β loss, the power taken as a number."""
    options = Wga.published()

    def theirs(_: list) -> float:
        losses = [-float(z.log_softmax(-1)[y]) for p, a in FORGET for z, y in places(p.text, a)]
        return -sum(math.exp(-loss) ** 1.0 * loss for loss in losses) / len(losses)

    return compared(lambda: options.forget_term(speaker(), FORGET), theirs)


def undial() -> Pair:
    """Cross entropy to softmax(teacher's logits - 10 where the token is the answer's), the mean over tokens."""
    options = Undial.published()
    goals = []
    for p, a in FORGET:
        for z, y in places(p.text, a):
            z[y] -= 10.0
            goals.append(z.exp() / z.exp().sum())

    def theirs(_: list) -> float:
        now = [z.log_softmax(-1) for p, a in FORGET for z, _ in places(p.text, a)]
        return -sum(float((goal * log).sum()) for goal, log in zip(goals, now, strict=True)) / len(goals)

    return compared(lambda: options.forget_term(speaker(), FORGET), theirs)


CASES: dict[str, Case] = {
    "npo": npo,
    "simnpo": simnpo,
    "dpo": dpo,
    "alt_po": alt_po,
    "wga": wga,
    "undial": undial,
    "grad_ascent": grad_ascent,
    "grad_diff": grad_diff,
}
