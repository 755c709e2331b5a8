"""Attacks that need nothing but prompts: ask them one after the other, and see how soon one shows the concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.budget import Attempt, Budget, Meter
from concept_probe.attacks.pictures import shown_pictures
from concept_probe.attacks.queries import ask, askable, query_rounds
from concept_probe.evaluation.rates import succeeded, success_of
from concept_probe.types import Concept, Prompt, Query, Score, Trial

if TYPE_CHECKING:
    from concept_probe.families import Subject

NOBODY = "Ulmerin"
"""A name that no concept has: what is answered about it can be guessed."""
DRAWS = 2
"""How often a prompt is asked at most, where chance has a part in the answer."""


def best_of_n(
    attack: Attack, subject: Subject, concept: Concept, budget: Budget, words: Sequence[Prompt],
    others: Sequence[Prompt], control_name: str, *, draws: int = DRAWS, examples: int = 0,
) -> Attempt:  # fmt: skip
    """Ask `words`, and half as many of `others`, for which a third of the budget is kept, as control.

    The curve is the chance that at least one of q queries, drawn at random from those asked, shows the concept:
    1 - C(N - h, q) / C(N, q) for h hits among N. `examples` is how many of the budget's the prompts hold.
    """
    meter = Meter(budget)
    meter.use_examples(examples)
    asked = budget.queries - (budget.queries // 3 if others else 0)
    trials, images = [], None
    queries = query_rounds(words, askable(attack, words, min(asked, len(words) * draws)), attack.seed)
    for part in _batches(queries, attack.sampling.batch):
        if meter.out_of_time():
            break
        seen, images = ask(attack, subject, concept, part, meter)
        trials += seen
    random: tuple = ()
    if not meter.out_of_time():
        count = min(len(trials) // 2, budget.queries - len(trials))
        random, _ = ask(
            attack, subject, concept, query_rounds(others, askable(attack, others, count), attack.seed), meter
        )
    control = success_of(control_name, random) if random else None
    last = trials[-len(images) :] if images is not None else []
    return Attempt(
        attack.name, concept.name, budget, meter.spent(), "queries",
        tuple((q, pass_at_k(trials, q, attack.name)) for q in doublings(len(trials))),
        (tuple(trials),) if trials else (), control, shown_pictures(attack, last, images),
    )  # fmt: skip


def pass_at_k(trials: Sequence[Trial], q: int, name: str = "paraphrases") -> Score:
    """Chance that q trials drawn without replacement hold a hit; its interval comes from that of the success rate."""
    rate, hits = success_of(name, trials), [succeeded(t) for t in trials]
    missed, n = 1.0, len(hits)
    for i in range(q):
        missed *= max(0, n - sum(hits) - i) / (n - i)
    value = 1 - missed
    low, high = 1 - (1 - rate.low) ** q, 1 - (1 - rate.high) ** q
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


def _batches(queries: tuple[Query, ...], size: int) -> list[tuple[Query, ...]]:
    return [queries[i : i + size] for i in range(0, len(queries), size)]
