"""Kept only if causal: what images lose when candidates are removed, against matched random ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.progress import Progress

from concept_probe.evaluation.bootstrap import mean_score
from concept_probe.evaluation.panel import (
    Panel,
    recognised,
    share_of_control,
    unrecognised,
    worst_residual,
    worst_retention,
)
from concept_probe.evaluation.selection import Selection
from concept_probe.find.vectors.candidates import Candidates
from concept_probe.types import Recogniser, Score

HOPELESS = 0.8
"""Share of the floor below which no more candidates are removed."""


@dataclass(frozen=True)
class VectorRemoval:
    """What the images of a panel show with so many candidates removed."""

    count: int
    target: Score
    """Detection on that list of the concept's prompts that keeps most; `control`: with matched random ones removed."""
    drop: Score
    """Detection with random ones removed minus detection with the candidates removed, paired by image."""
    others: Score
    """Recognition of those others (neighbours, unrelated) that lose most; its `control` is the untouched subject's."""

    def residual(self) -> float:
        """Detection of the concept that is left."""
        return self.target.value

    def retention(self) -> float:
        """Recognition of others as a share of the untouched subject's."""
        return share_of_control(self.others)


@dataclass(frozen=True)
class RemovalCurve:
    """Removals of growing size, and which of them is kept."""

    before: Score
    """Detection of the concept by the untouched subject."""
    removals: tuple[VectorRemoval, ...]
    selection: Selection

    def done(self) -> VectorRemoval | None:
        """The smallest causal removal that reaches both marks."""
        return self.selection.reached(self._causal())

    def chosen(self) -> VectorRemoval | None:
        """The best causal removal, by `Selection.best`: the paired interval of its drop lies above 0."""
        return self.selection.best(self._causal())

    def _causal(self) -> list[VectorRemoval]:
        return sorted((r for r in self.removals if r.drop.low > 0), key=lambda r: r.count)


@torch.no_grad()
def removal_curve(
    candidates: Candidates,
    tested: Panel,
    recogniser: Recogniser,
    counts: Sequence[int],
    *,
    controls: int = 1,
    selection: Selection = Selection(),
) -> RemovalCurve:
    """Remove more and more candidates; stop at the first count that reaches both marks of `selection`.

    Also where others keep far less than its floor: more candidates would not give them back.

    Each image's control is the mean over `controls` draws of matched random candidates. All use the same queries, so
    that an image differs only by what was removed.
    """
    subject, name, seed = candidates.subject, tested.concept, selection.seed
    random_removals = candidates.random_removals(controls, max(counts), seed)

    def target() -> torch.Tensor:
        return recognised(subject, tested.forget, recogniser, selection.sampling, name)

    def rest() -> torch.Tensor:
        return recognised(subject, tested.retain, recogniser, selection.sampling, None)

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"removing candidates for {name}", total=len(counts) + 1)
        before, untouched = target(), rest()
        if not before.any():
            raise ValueError(
                f"{name!r}, the label of the concept's target prompts, is seen in none of {len(before)} pictures of the "
                "untouched subject, so nothing can be found to cause it; check the label, the recogniser and the sampling"
            )
        for said in unrecognised(tested, untouched):
            warnings.warn(said, stacklevel=2)
        progress.advance(task)
        curve = RemovalCurve(mean_score(before, "detection before", better="lower", seed=seed), (), selection)
        for count in sorted(counts):
            with candidates.removal(count)():
                after, others = target(), rest()
            drawn = []
            for removal in random_removals(count):
                with removal():
                    drawn.append(target())
            random = torch.stack(drawn).mean(0)
            last = VectorRemoval(
                count,
                worst_residual(tested, after, random, seed, "detection with candidates removed"),
                mean_score(random - after, "drop against matched random ones", control=0.0, better="higher", seed=seed),
                worst_retention(tested, others, untouched, seed),
            )
            curve = RemovalCurve(curve.before, (*curve.removals, last), selection)
            progress.advance(task)
            if curve.done() or last.retention() < HOPELESS * min(selection.floor, selection.retain):
                break
    return curve
