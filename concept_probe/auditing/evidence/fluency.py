"""What an erasure does to a language model's speech: perplexity of kept texts, and likeness to what it wrote before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from concept_probe.auditing.arm import Arm
from concept_probe.auditing.evidence.behaviour import Evidence, Views
from concept_probe.auditing.evidence.gold_answers import shuffled, surprise, text_of
from concept_probe.auditing.observe import Observation
from concept_probe.detect.answers import Continues, bleu, rouge_l
from concept_probe.evaluation.intervals import percentiles
from concept_probe.evaluation.rates import per_fact
from concept_probe.types import JUDGED_KINDS, RETAIN_KINDS, Finding, Kind, Prompt

LIKENESS: dict[str, Callable[[str, str], float]] = {"ROUGE-L": rouge_l, "BLEU": bleu}


def fluency(views: Views, before: Arm) -> Evidence:
    """Findings on texts, without indices: perplexity where it must stay, and ROUGE-L and BLEU; none of pictures.

    Without a twin, the control of perplexity is what the subject before makes of the same texts with a wrong answer, or,
    where prompts have no distractors, of the same words in another order.
    """
    out = Evidence()
    for kind in views.before.readings:
        _perplexity(out, views, before, kind)
    for kind in JUDGED_KINDS:
        if views.before.texts.get(kind):
            for metric, measure in LIKENESS.items():
                _likeness(out, views, kind, metric, measure)
    return out


def _perplexity(out: Evidence, views: Views, arm: Arm, kind: Kind) -> None:
    """exp(nats / tokens) over all texts of a kind; prompts are drawn, wordings of one fact together."""
    prompts = views.plan.prompts(kind)

    def sums(nats: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return per_fact(nats, prompts), per_fact(tokens, prompts)

    def value(nats: Tensor, tokens: Tensor) -> float:
        return float((nats.sum() / tokens.sum()).exp())

    before, after = (sums(o.readings[kind].nats, o.readings[kind].tokens) for o in (views.before, views.after))
    if views.control is not None:
        read = views.control.readings[kind]
        control, name = sums(read.nats, read.tokens), "never-taught twin"
    else:
        texts, name = spoilt(prompts)
        control = sums(*_read(arm, texts))
    nats, tokens = after
    weights = views.bootstrap.weights(f"perplexity/{kind}", len(nats))
    low, high = percentiles(((weights @ nats) / (weights @ tokens)).exp())
    out.findings.append(
        Finding(
            evidence="behaviour",
            metric="perplexity of texts to be kept",
            split=kind,
            before=value(*before),
            after=value(*after),
            control=value(*control),
            low=low,
            high=high,
            n=len(nats),
            better="lower",
            control_name=name,
            note=f"{value(*after) / value(*before):.2f} times that before",
        )
    )


def spoilt(prompts: Sequence[Prompt]) -> tuple[list[str], str]:
    """Texts that are as good as the kept ones but for their sense, and what they are."""
    if all(p.distractors and p.answers for p in prompts):
        return [text_of(replace(p, answers=p.distractors[:1])) for p in prompts], "before, with a wrong answer"
    return [shuffled(text_of(p)) for p in prompts], "before, words in another order"


def _read(arm: Arm, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    subject = arm.subject
    assert isinstance(subject, Continues)  # for the type checker: others have no readings
    with arm.on():
        return surprise(subject, texts)


def _likeness(out: Evidence, views: Views, kind: Kind, metric: str, measure: Callable[[str, str], float]) -> None:
    """How much of what was written before stands in what is written now. Before is like itself, unless it is empty."""
    first = views.before.texts[kind]

    def alike(texts: tuple[tuple[str, ...], ...]) -> Tensor:
        return torch.tensor(
            [[measure(now, was) for now, was in zip(*row, strict=True)] for row in zip(texts, first, strict=True)],
            dtype=torch.float64,
        ).clamp(0, 1)

    def draw(seen: Observation, arm: str):
        return views.rate(views.per_fact(alike(seen.texts[kind]), kind), f"{metric}/{kind}", arm)

    after = draw(views.after, "after")
    if views.control is not None:
        control, name = draw(views.control, "control").value, "never-taught twin"
    else:
        others = (*first[1:], first[0])  # what was written before for the next prompt
        control, name = float(views.per_fact(alike(others), kind).mean()), "texts before for another prompt"
    out.findings.append(
        Finding(
            evidence="behaviour",
            metric=f"{metric} with what was written before",
            split=kind,
            before=float(views.per_fact(alike(first), kind).mean()),
            after=after.value,
            control=control,
            low=after.interval()[0],
            high=after.interval()[1],
            n=after.n,
            better="higher" if kind in RETAIN_KINDS else "lower",
            control_name=name,
            unit=metric,
        )
    )
