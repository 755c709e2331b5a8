"""Kept only if causal: what pictures lose when candidates are removed, against matched random ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from concept_probe.detect import trials
from concept_probe.find.statistics import mean_score
from concept_probe.types import Concept, Kind, Prompt, Query, Recogniser, Sampling, Score, Split

if TYPE_CHECKING:
    from concept_probe.families import Subject

Removal = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Panel:
    """The queries that a removal is judged on: those that must go, and those that must stay."""

    gone: tuple[Query, ...]
    stay: tuple[Query, ...]
    concept: str


def panel(
    concept: Concept,
    *,
    split: Split = "select",
    gone: Sequence[Kind] = ("target", "paraphrases", "implicit"),
    stay: Sequence[Kind] = ("neighbours", "unrelated"),
    images: int = 16,
    seed: int = 0,
) -> Panel:
    """About `images` queries for each side, spread over the lists and their prompts; each has a seed of its own."""
    what = f"{concept.name!r}, {split} split"
    return Panel(
        _spread([concept.prompts(kind, split) for kind in gone], images, seed, what),
        _spread([concept.prompts(kind, split) for kind in stay], images, seed + 1000, what),
        concept.name,
    )


def _spread(lists: Sequence[tuple[Prompt, ...]], images: int, seed: int, what: str) -> tuple[Query, ...]:
    lists = [prompts for prompts in lists if prompts]
    if not lists:
        raise ValueError(f"concept {what}: no prompts to make pictures from")
    share = -(-images // len(lists))
    out = []
    for prompts in lists:
        # Evenly spaced places, repeated from the start where there are fewer prompts than pictures.
        places = [i * len(prompts) // share for i in range(share)] if share <= len(prompts) else range(share)
        out += [prompts[i % len(prompts)] for i in places]
    return tuple(Query(prompt, seed + i) for i, prompt in enumerate(out[: max(images, len(lists))]))


def hits(
    subject: Subject, queries: Sequence[Query], recogniser: Recogniser, sampling: Sampling, label: str | None
) -> Tensor:
    """(n,) float: 1 where the recogniser sees `label`, or the query's own label where `label` is None."""
    found = trials(recogniser, subject.generate(queries, sampling), queries, label)
    return torch.tensor([float(t.seen == (label if label is not None else t.query.prompt.label)) for t in found])


@dataclass(frozen=True)
class Rung:
    """One step of a ladder: the pictures with so many candidates removed."""

    count: int
    target: Score
    """Detection of the concept; its `control` is the same with matched random ones removed."""
    drop: Score
    """Detection with random ones removed minus detection with the candidates removed, paired by picture."""
    kept: Score
    """Recognition of neighbours and unrelated prompts; its `control` is that of the untouched subject."""


@dataclass(frozen=True)
class Ladder:
    """Removals of growing size, and which of them is kept."""

    before: Score
    """Detection of the concept by the untouched subject."""
    rungs: tuple[Rung, ...]
    goal: float
    retain: float

    def chosen(self) -> Rung | None:
        """The smallest rung that reaches the goal, else the one that removes most, among those that are causal.

        Causal: the paired interval of the drop lies above 0, and the others keep `retain` of their recognition.
        """
        causal = [r for r in self.rungs if r.drop.low > 0 and r.kept.value >= self.retain * (r.kept.control or 0.0)]
        reached = [r for r in causal if r.target.value <= self.goal]
        if reached:
            return min(reached, key=lambda r: r.count)
        return max(causal, key=lambda r: (r.drop.value, -r.count), default=None)


@torch.no_grad()
def climb(
    subject: Subject,
    tested: Panel,
    recogniser: Recogniser,
    counts: Sequence[int],
    remove: Callable[[int], Removal],
    remove_random: Callable[[int], Sequence[Removal]],
    *,
    goal: float = 0.2,
    retain: float = 0.9,
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> Ladder:
    """Remove more and more candidates; stop at the first count that reaches the goal.

    `remove_random(count)` gives matched random removals; each picture's control is their mean. All
    use the same queries, so that a picture differs only by what was removed.
    """
    name = tested.concept
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"removing candidates for {name}", total=len(counts) + 1)
        before = hits(subject, tested.gone, recogniser, sampling, name)
        untouched = hits(subject, tested.stay, recogniser, sampling, None)
        progress.advance(task)
        rungs = []
        for count in sorted(counts):
            with remove(count)():
                after = hits(subject, tested.gone, recogniser, sampling, name)
                kept = hits(subject, tested.stay, recogniser, sampling, None)
            controls = []
            for removal in remove_random(count):
                with removal():
                    controls.append(hits(subject, tested.gone, recogniser, sampling, name))
            random = torch.stack(controls).mean(0)
            spared, others = float(random.mean()), float(untouched.mean())
            rung = Rung(
                count,
                mean_score(after, "detection with candidates removed", control=spared, better="lower", seed=seed),
                mean_score(random - after, "drop against matched random ones", control=0.0, better="higher", seed=seed),
                mean_score(kept, "recognition of others", control=others, better="higher", seed=seed),
            )
            rungs.append(rung)
            progress.advance(task)
            if Ladder(_detection(before, seed), (rung,), goal, retain).chosen() and rung.target.value <= goal:
                break
    return Ladder(_detection(before, seed), tuple(rungs), goal, retain)


def _detection(seen: Tensor, seed: int) -> Score:
    return mean_score(seen, "detection before", better="lower", seed=seed)
