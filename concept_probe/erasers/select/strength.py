"""How strong an erasure of a language model should be: chosen by what is written on the select split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from concept_probe.erasers.select.choose import Choice, PanelJudge, Tried
from concept_probe.evaluation.panel import Panel
from concept_probe.evaluation.selection import Selection
from concept_probe.evaluation.thinning import scattered
from concept_probe.types import RETAIN_KINDS, Concept, Erasure, Judge, Kind, Prompt, Query, Sampling

if TYPE_CHECKING:
    from concept_probe.families import Subject

STRENGTHS = (0.35, 0.6, 1.0, 1.6)
STRENGTH_CHOICE = Selection(images=16, goal=0.1, retain=0.9, floor=0.85, sampling=Sampling(tokens=8, batch=32))
"""How a strength is chosen where nothing else is asked for: at most `images` texts of each list of prompts are asked."""
FORGOTTEN: tuple[Kind, ...] = ("target", "paraphrases")
"""Lists of the concept's prompts that have answers in words."""


@torch.no_grad()
def choose_strength(
    subject: Subject,
    concept: Concept,
    erasure: Erasure,
    *,
    recogniser: Judge,
    strengths: Sequence[float] = STRENGTHS,
    halvings: int = 2,
    selection: Selection = STRENGTH_CHOICE,
) -> Choice:
    """Write answers to at most `selection.images` select prompts of each kind under `erasure.scaled(s)`, from weak to strong.

    The first strength that leaves at most the goal of the right answers on the worst list of the concept's prompts, while
    the worst of the lists to be kept (neighbours, unrelated) retains its own, is taken, and no stronger one is
    tried. Where others fall below the floor, more strength gives nothing back: the step to there from the strength before
    is halved `halvings` times. Where none reaches both marks: of those that keep the floor, the one least short of them
    (see `Selection.shortfall`); else the one that keeps most.

    Then `missed` of the choice says so, and a warning.

    Raises ValueError without a strength above 0, without select prompts of both sides, or where the untouched subject
    gives no right answer.
    """
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"strengths are {tuple(strengths)}; give some above 0")
    asked = written_panel(concept, selection.images, selection.seed)
    judge = PanelJudge.of(subject, recogniser, asked, selection.sampling, selection.seed).telling()
    names: dict[str, Erasure] = {}
    tried: list[Tried] = []

    def attempt(strength: float) -> Tried:
        name = f"{erasure.name} x {strength:.3g}"
        names[name] = erasure.scaled(strength)
        tried.append(judge(name, names[name]))
        return tried[-1]

    kept = 0.0
    for strength in sorted(strengths):
        last = attempt(strength)
        if selection.reached([last]):
            break
        if last.retention() < selection.floor:
            lost = strength
            for _ in range(halvings):
                middle = (kept + lost) / 2
                last = attempt(middle)
                if selection.reached([last]):
                    break
                kept, lost = (middle, lost) if last.retention() >= selection.floor else (kept, middle)
            break
        kept = strength
    chosen = selection.reached(tried) or selection.best(tried) or max(tried, key=Tried.retention)
    return Choice.of(chosen, names, tried, (), selection)


def written_panel(concept: Concept, texts: int, seed: int) -> Panel:
    """At most `texts` select prompts of every list, each once: without chance a second text would be the same."""
    forget, own = _each([concept.prompts(kind, "select") for kind in FORGOTTEN], texts, seed, concept)
    retain, others = _each([concept.prompts(kind, "select") for kind in RETAIN_KINDS], texts, seed, concept)
    return Panel(forget, retain, next(q.prompt.label for q in forget if q.prompt.label), own, others)


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
