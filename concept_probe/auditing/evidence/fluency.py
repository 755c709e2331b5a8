"""What an erasure does to a language model's speech: perplexity of kept texts, and likeness to what it wrote before.

Findings without indices: they say what an erasure cost.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from concept_probe.auditing.arm import Arm
from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence.finding import Estimate, Evidence, Measure, Metric, compare, joined_evidence
from concept_probe.auditing.gold_answers import Surprisal, surprisal, text_with_answer
from concept_probe.auditing.observe import Observation
from concept_probe.auditing.sides import Side
from concept_probe.detect.answers import Continues, bleu, rouge_l
from concept_probe.evaluation.bayesian import Draws
from concept_probe.evaluation.intervals import percentiles
from concept_probe.evaluation.rates import per_fact
from concept_probe.types import JUDGED_KINDS, RETAIN_KINDS, Kind, Prompt

PERPLEXITY = Metric("behaviour", "perplexity of texts to be kept", "lower")
LIKENESS: dict[str, Callable[[str, str], float]] = {"ROUGE-L": rouge_l, "BLEU": bleu}


def _fluency(context: Context) -> Evidence:
    written: list[Kind] = [kind for kind in JUDGED_KINDS if context.seen.before.texts.get(kind)]
    return joined_evidence(
        (
            *(_perplexity(context, kind) for kind in context.seen.before.surprisals),
            *(_likeness(context, kind, name) for kind in written for name in LIKENESS),
        )
    )


def _perplexity(context: Context, kind: Kind) -> Evidence:
    """exp(nats / tokens) over all texts of a kind; prompts are drawn, wordings of one fact together.

    Without a twin, the control is what the subject before makes of the same texts with a wrong answer, or, where prompts
    have no distractors, of the same words in another order.
    """
    prompts = context.questions.prompts(kind)

    def sums(of: Surprisal) -> tuple[Tensor, Tensor]:
        return per_fact(of.nats, prompts), per_fact(of.tokens, prompts)

    def value(nats: Tensor, tokens: Tensor) -> float:
        return float((nats.sum() / tokens.sum()).exp())

    seen = context.seen
    before, after = (sums(o.surprisals[kind]) for o in (seen.before, seen.after))
    if seen.control is not None:
        never, control = sums(seen.control.surprisals[kind]), "never-taught twin"
    else:
        texts, control = spoilt(prompts)
        never = sums(_read(context.arms.before, texts))
    nats, tokens = after
    weights = context.bootstrap.weights(f"perplexity/{kind}", len(nats))
    now = Estimate(
        value(*after), *percentiles(((weights @ nats) / (weights @ tokens)).exp(), context.bootstrap.error), len(nats)
    )
    note = f"{now.value / value(*before):.2f} times that before"
    return Evidence((compare(PERPLEXITY, kind, value(*before), now, value(*never), control=control, note=note),))


def spoilt(prompts: Sequence[Prompt]) -> tuple[list[str], str]:
    """Texts that are as good as the kept ones but for their sense, and what they are."""
    if all(p.distractors and p.answers for p in prompts):
        return [text_with_answer(replace(p, answers=p.distractors[:1])) for p in prompts], "before, with a wrong answer"
    return [in_another_order(text_with_answer(p)) for p in prompts], "before, words in another order"


def in_another_order(text: str) -> str:
    """The words of a text in an order of chance, always the same."""
    words = text.split()
    random.Random(zlib.crc32(text.encode())).shuffle(words)
    return " ".join(words)


def _read(arm: Arm, texts: Sequence[str]) -> Surprisal:
    subject = arm.subject
    assert isinstance(subject, Continues)  # for the type checker: others have no surprisals
    with arm.on():
        return surprisal(subject, texts)


def _likeness(context: Context, kind: Kind, name: str) -> Evidence:
    """How much of what was written before stands in what is written now. Before is like itself, unless it is empty."""
    first, measure = context.seen.before.texts[kind], LIKENESS[name]
    metric = Metric(
        "behaviour", f"{name} with what was written before", "higher" if kind in RETAIN_KINDS else "lower", name
    )

    def alike(texts: tuple[tuple[str, ...], ...]) -> Tensor:
        of = [[measure(now, was) for now, was in zip(*row, strict=True)] for row in zip(texts, first, strict=True)]
        return context.per_fact(torch.tensor(of, dtype=torch.float64).clamp(0, 1), kind)

    def rate(seen: Observation, side: Side) -> Draws:
        return context.rate(alike(seen.texts[kind]), f"{name}/{kind}", side)

    after = rate(context.seen.after, "after")
    if context.seen.control is not None:
        never, control = rate(context.seen.control, "control").value, "never-taught twin"
    else:
        others = (*first[1:], first[0])  # what was written before for the next prompt
        never, control = float(alike(others).mean()), "texts before for another prompt"
    return Evidence((compare(metric, kind, float(alike(first).mean()), after, never, control=control),))


FLUENCY = Measure("fluency", _fluency, on="texts", asks=JUDGED_KINDS)
