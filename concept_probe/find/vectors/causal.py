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

from concept_probe.evaluation.bootstrap import mean_score
from concept_probe.evaluation.panel import Panel, most_left, most_lost, recognised, share_of_control
from concept_probe.evaluation.selection import best, reached
from concept_probe.types import Recogniser, Sampling, Score

if TYPE_CHECKING:
    from concept_probe.families import Subject

HOPELESS = 0.8
"""Share of the floor below which a ladder is not climbed further."""
Removal = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Rung:
    """One step of a ladder: the pictures with so many candidates removed."""

    count: int
    target: Score
    """Detection on that list of the concept's prompts that keeps most; `control`: with matched random ones removed."""
    drop: Score
    """Detection with random ones removed minus detection with the candidates removed, paired by picture."""
    kept: Score
    """Recognition of those others (neighbours, unrelated) that lose most; its `control` is the untouched subject's."""

    def left(self) -> float:
        """Detection of the concept that is left."""
        return self.target.value

    def retained(self) -> float:
        """Recognition of others as a share of the untouched subject's."""
        return share_of_control(self.kept)


@dataclass(frozen=True)
class Ladder:
    """Removals of growing size, and which of them is kept."""

    before: Score
    """Detection of the concept by the untouched subject."""
    rungs: tuple[Rung, ...]
    goal: float
    retain: float
    floor: float

    def done(self) -> Rung | None:
        """The smallest causal rung that reaches both marks."""
        return reached(self._causal(), self.goal, self.retain)

    def chosen(self) -> Rung | None:
        """The best causal rung, by `best`: the paired interval of its drop lies above 0."""
        return best(self._causal(), self.goal, self.retain, self.floor)

    def _causal(self) -> list[Rung]:
        return sorted((r for r in self.rungs if r.drop.low > 0), key=lambda r: r.count)


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
    retain: float = 0.95,
    floor: float = 0.9,
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> Ladder:
    """Remove more and more candidates; stop at the first count that reaches both `goal` and `retain`.

    Also where others keep far less than `floor`: more candidates would not give them back.

    `remove_random(count)` gives matched random removals; each picture's control is their mean. All
    use the same queries, so that a picture differs only by what was removed.
    """
    name = tested.concept
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"removing candidates for {name}", total=len(counts) + 1)
        before = recognised(subject, tested.gone, recogniser, sampling, name)
        untouched = recognised(subject, tested.stay, recogniser, sampling, None)
        progress.advance(task)
        rungs, ladder = [], Ladder(_detection(before, seed), (), goal, retain, floor)
        for count in sorted(counts):
            with remove(count)():
                after = recognised(subject, tested.gone, recogniser, sampling, name)
                kept = recognised(subject, tested.stay, recogniser, sampling, None)
            controls = []
            for removal in remove_random(count):
                with removal():
                    controls.append(recognised(subject, tested.gone, recogniser, sampling, name))
            random = torch.stack(controls).mean(0)
            rung = Rung(
                count,
                most_left(tested, after, random, seed, "detection with candidates removed"),
                mean_score(random - after, "drop against matched random ones", control=0.0, better="higher", seed=seed),
                most_lost(tested, kept, untouched, seed),
            )
            rungs.append(rung)
            progress.advance(task)
            ladder = Ladder(_detection(before, seed), tuple(rungs), goal, retain, floor)
            if ladder.done() or rung.retained() < HOPELESS * min(floor, retain):
                break
    return ladder


def _detection(seen: Tensor, seed: int) -> Score:
    return mean_score(seen, "detection before", better="lower", seed=seed)
