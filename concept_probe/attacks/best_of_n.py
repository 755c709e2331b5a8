"""Attacks that need nothing but prompts: ask them one after the other, and see how soon one shows the concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from concept_probe.attacks.attempt import AttackRun, Attempt
from concept_probe.evaluation.rates import succeeded, success_of
from concept_probe.types import Prompt, Score, Trial

NOBODY = "Ulmerin"
"""A name that no concept has: what is answered about it can be guessed."""


@dataclass(frozen=True)
class PromptPlan:
    """What is asked of a subject, and what stands against it."""

    prompts: Sequence[Prompt]
    others: Sequence[Prompt]
    """Those of the control."""
    control_name: str
    draws: int = 2
    """How often a prompt is asked at most, where chance has a part in the answer."""


def best_of_n(run: AttackRun[Any], plan: PromptPlan) -> Attempt:
    """Ask the prompts, and half as many of the others, for which a third of the budget is kept, as control.

    The curve is the chance that at least one of k queries, drawn at random from those asked, shows the concept.
    """
    name, budget, batch = run.attack.name, run.budget, run.sampling.batch
    asked = budget.queries - (budget.queries // 3 if plan.others else 0)
    trials, images = [], None
    queries = run.queries(plan.prompts, min(asked, len(plan.prompts) * plan.draws))
    for start in range(0, len(queries), batch):
        if run.meter.out_of_time():
            break
        seen, images = run.ask(queries[start : start + batch])
        trials += seen
    random: tuple[Trial, ...] = ()
    if not run.meter.out_of_time():
        count = min(len(trials) // 2, budget.queries - len(trials))
        random, _ = run.ask(run.queries(plan.others, count))
    return run.attempt(
        "queries",
        [(k, pass_at_k(name, trials, k)) for k in doublings(len(trials))],
        (tuple(trials),) if trials else (),
        control=success_of(plan.control_name, random) if random else None,
        shown=(trials[-len(images) :] if images is not None else (), images),
    )


def pass_at_k(name: str, trials: Sequence[Trial], k: int) -> Score:
    """Chance that k of N trials, drawn without replacement, hold one of h hits: 1 - C(N - h, k) / C(N, k).

    The estimator of arXiv 2107.03374, eq. 1. Its interval comes from that of the success rate.
    """
    rate, hits = success_of(name, trials), [succeeded(t) for t in trials]
    missed, n = 1.0, len(hits)
    for i in range(k):
        missed *= max(0, n - sum(hits) - i) / (n - i)
    value = 1 - missed
    low, high = 1 - (1 - rate.low) ** k, 1 - (1 - rate.high) ** k
    return Score(name, value, min(low, value), max(high, value), n, "rate", "lower")


def doublings(n: int) -> list[int]:
    """1, 2, 4, ... up to n // 2 (beyond that the same few trials say everything)."""
    out = [1] if n else []
    while out and out[-1] * 2 <= n // 2:
        out.append(out[-1] * 2)
    return out


def of_nobody(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """The prompts that name their subject, with `NOBODY` named instead."""
    return tuple(
        replace(p, text=p.text.replace(p.subject, NOBODY), subject=NOBODY)
        for p in prompts
        if p.subject is not None and p.subject in p.text
    )
