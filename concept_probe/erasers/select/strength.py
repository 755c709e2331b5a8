"""How strong an erasure of a language model should be: chosen by what is written on the select split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.intervention import Intervention
from concept_probe.erasers.select.choose import Choice, PanelJudge, Tried
from concept_probe.evaluation.panel import Panel
from concept_probe.evaluation.selection import best, reached
from concept_probe.evaluation.thinning import scattered
from concept_probe.types import RETAIN_KINDS, Concept, Judge, Kind, Prompt, Query, Sampling

if TYPE_CHECKING:
    from concept_probe.families import Subject

STRENGTHS = (0.35, 0.6, 1.0, 1.6)
GONE: tuple[Kind, ...] = ("target", "paraphrases")


@torch.no_grad()
def choose_strength(
    subject: Subject,
    concept: Concept,
    erasure: Intervention | Edit,
    *,
    recogniser: Judge,
    strengths: Sequence[float] = STRENGTHS,
    texts: int = 16,
    goal: float = 0.1,
    retain: float = 0.9,
    floor: float = 0.85,
    halvings: int = 2,
    sampling: Sampling = Sampling(tokens=8, batch=32),
    seed: int = 0,
) -> Choice:
    """Write answers to at most `texts` select prompts of each kind under `erasure.scaled(s)`, from weak to strong.

    The first strength that leaves at most `goal` of the right answers on the worst list of the concept's prompts, while
    the worst of the lists to be kept (neighbours, unrelated) keeps `retain` of its own, is taken, and no stronger one is
    tried. Where others fall below `floor`, more strength gives nothing back: the step to there from the strength before
    is halved `halvings` times. Where none reaches both marks: of those that keep `floor`, the one least short of them
    (see `find.causal.shortfall`); else the one that keeps most.

    Raises ValueError without a strength above 0, or without select prompts of both sides.
    """
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"strengths are {tuple(strengths)}; give some above 0")
    judge = PanelJudge.of(subject, recogniser, written_panel(concept, texts, seed), sampling, seed)
    names: dict[str, Intervention | Edit] = {}
    tried: list[Tried] = []

    def attempt(strength: float) -> Tried:
        name = f"{erasure.name} x {strength:.3g}"
        names[name] = erasure.scaled(strength)
        tried.append(judge(name, names[name]))
        return tried[-1]

    kept = 0.0
    for strength in sorted(strengths):
        last = attempt(strength)
        if reached([last], goal, retain):
            break
        if last.retained() < floor:
            lost = strength
            for _ in range(halvings):
                middle = (kept + lost) / 2
                last = attempt(middle)
                if reached([last], goal, retain):
                    break
                kept, lost = (middle, lost) if last.retained() >= floor else (kept, middle)
            break
        kept = strength
    chosen = reached(tried, goal, retain) or best(tried, goal, retain, floor) or max(tried, key=lambda t: t.retained())
    return Choice(chosen.name, names[chosen.name], tuple(tried))


def written_panel(concept: Concept, texts: int, seed: int) -> Panel:
    """At most `texts` select prompts of every list, each once: without chance a second text would be the same."""
    gone, own = _each([concept.prompts(kind, "select") for kind in GONE], texts, seed, concept)
    stay, others = _each([concept.prompts(kind, "select") for kind in RETAIN_KINDS], texts, seed, concept)
    return Panel(gone, stay, next(q.prompt.label for q in gone if q.prompt.label), own, others)


def _each(
    lists: Sequence[tuple[Prompt, ...]], texts: int, seed: int, concept: Concept
) -> tuple[tuple[Query, ...], tuple[int, ...]]:
    """Queries, and which of the lists each is from."""
    usable = [tuple(p for p in prompts if p.answers and p.label) for prompts in lists]
    usable = [prompts for prompts in usable if prompts]
    if not usable:
        raise ValueError(
            f"concept {concept.name!r}: its select split lacks prompts with answers and labels on one side, so a strength "
            "can't be chosen; give it some in target and in neighbours or unrelated"
        )
    out = [
        (Query(prompts[place], seed), number)
        for number, prompts in enumerate(usable)
        for place in scattered(min(texts, len(prompts)), len(prompts))
    ]
    return tuple(query for query, _ in out), tuple(number for _, number in out)
