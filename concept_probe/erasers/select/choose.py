"""Choose an erasure by measurement: of several, the one that removes the concept and keeps the rest."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from concept_probe.erasers.effect import refuse_unseen, with_note
from concept_probe.evaluation.panel import (
    NothingSeen,
    Panel,
    panel,
    recognition,
    share_of_control,
    unrecognised,
    worst_residual,
    worst_retention,
)
from concept_probe.evaluation.selection import Selection
from concept_probe.types import Concept, Erasure, Judge, Recogniser, Sampling, Score, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

CHOICE = Selection(images=36, goal=0.05)
"""How an erasure is chosen where nothing else is asked for; stricter than a finder, which only has to find."""
FINALISTS = 3
"""How many of the screened erasures get the careful look."""
FEWER_STEPS = 3
"""A screening takes one denoising step where the careful look takes this many."""


@dataclass(frozen=True)
class Tried:
    """What one erasure did to pictures of the select split."""

    name: str
    forget: Score
    """Detection on that list of the concept's prompts that keeps most; its `control` is the untouched subject's."""
    retain: Score
    """Recognition of those others (neighbours, unrelated) that lose most; its `control` is the untouched subject's."""
    doubt: float = 0.0
    """Mean probability of the concept on its worst list plus twice what others lose in probability.

    It tells a wide margin from a narrow one where counts of pictures agree."""

    def residual(self) -> float:
        """Detection of the concept that is left."""
        return self.forget.value

    def retention(self) -> float:
        """Recognition of others as a share of the untouched subject's."""
        return share_of_control(self.retain)


@dataclass(frozen=True)
class Choice:
    """The chosen erasure and the tables it was chosen from."""

    name: str
    erasure: Erasure
    tried: tuple[Tried, ...]
    """Those that got the careful look, surest first."""
    screened: tuple[Tried, ...] = ()
    """All of them on few pictures of few steps, in the order given; empty where there were too few to screen."""
    found: tuple[Subspace, ...] = ()
    """What the chosen erasure was made from, where the chooser knows."""
    missed: tuple[str, ...] = ()
    """Which marks the chosen one does not reach, in words; empty where it reaches both."""

    @classmethod
    def of(
        cls, chosen: Tried, erasures: Mapping[str, Erasure], tried: Sequence[Tried], screened: Sequence[Tried],
        selection: Selection,
    ) -> Choice:  # fmt: skip
        """The choice of one that was tried, which says what it did under `effect` of its `made_by`.

        Warns where it misses a mark.
        """
        missed = selection.missed(chosen)
        if missed:
            best = "none reaches both marks, and the best is no good choice" if len(tried) > 1 else "it misses a mark"
            warnings.warn(f"chosen {chosen.name!r}: {best}: {'; '.join(missed)}", stacklevel=3)
        effect = {"before": chosen.forget.control, "left": chosen.residual(), "others_keep": chosen.retention()}
        erasure = with_note(erasures[chosen.name], effect=effect | {"missed": list(missed)})
        return cls(chosen.name, erasure, tuple(tried), tuple(screened), missed=missed)


@dataclass(frozen=True)
class PanelJudge:
    """Makes the answers of a panel under one erasure after the other and compares them with the untouched subject's."""

    subject: Subject
    recogniser: Judge
    tested: Panel
    sampling: Sampling
    forget: Tensor
    """(n, 2): seen or not, and probability, of the untouched subject"""
    retain: Tensor
    """(m, 2)"""
    seed: int
    unrecognised: tuple[str, ...] = ()
    """Lists of others that the untouched subject shows nothing of, in words; they are left out."""

    @classmethod
    def of(cls, subject: Subject, recogniser: Judge, tested: Panel, sampling: Sampling, seed: int) -> PanelJudge:
        """Look at the untouched subject once. Raises NothingSeen where it shows nothing of the concept, or of others."""
        forget = recognition(subject, tested.forget, recogniser, sampling, tested.concept)
        if not forget[:, 0].any():
            refuse_unseen(tested.concept, len(forget))
        retain = recognition(subject, tested.retain, recogniser, sampling, None)
        said = unrecognised(tested, retain[:, 0])
        return cls(subject, recogniser, tested, sampling, forget, retain, seed, said)

    def telling(self) -> PanelJudge:
        """The same, after a warning of each list that it leaves out."""
        for said in self.unrecognised:
            warnings.warn(said, stacklevel=3)
        return self

    def __call__(self, name: str, erasure: Erasure) -> Tried:
        with erasure.on(self.subject):
            forget = recognition(self.subject, self.tested.forget, self.recogniser, self.sampling, self.tested.concept)
            retain = recognition(self.subject, self.tested.retain, self.recogniser, self.sampling, None)
        traces = worst_residual(self.tested, forget[:, 1], self.forget[:, 1], self.seed).value
        kept = share_of_control(worst_retention(self.tested, retain[:, 1], self.retain[:, 1], self.seed))
        return Tried(
            name,
            worst_residual(self.tested, forget[:, 0], self.forget[:, 0], self.seed),
            worst_retention(self.tested, retain[:, 0], self.retain[:, 0], self.seed),
            traces + 2 * (1 - kept),
        )


@torch.no_grad()
def choose(
    erasures: Mapping[str, Erasure],
    subject: Subject,
    concept: Concept,
    *,
    recogniser: Recogniser,
    tested: Panel | None = None,
    selection: Selection = CHOICE,
) -> Choice:
    """Make the same pictures of the select split under each erasure and take the best one.

    More than `FINALISTS` are screened first, on few pictures of few denoising steps; the surest of them
    get a careful look at other noise: `selection.images` of the concept, a third more of others, or the
    panel `tested`. `selection.screening` and the steps of its sampling make both smaller.
    Each list of prompts is judged alone, and the worst one counts.

    Best: the first whose detection is at most the goal while others retain their recognition,
    in order of certainty after a screening (see `surest`), in the given order without one; those behind it get no
    careful look. Where none reaches both marks: of those that keep the floor, the one that is least short of them
    (see `Selection.shortfall`); else the one that keeps most. Then `missed` of the choice says by how much, and a
    warning. Raises ValueError where the untouched subject shows nothing of the concept (everything would erase it)
    or of any other (everything would keep them); of one list of others there is a warning.
    """
    if not erasures:
        raise ValueError("no erasure was given to choose from")
    names, screened = list(erasures), []
    images, sampling, seed = selection.images, selection.sampling, selection.seed
    if len(names) > FINALISTS:
        quick = selection.screening
        few = panel(concept, images=quick, others=quick * 4 // 3, seed=seed + 7000)
        fast = replace(sampling, steps=max(1, round(sampling.steps / FEWER_STEPS)))
        try:
            judge = PanelJudge.of(subject, recogniser, few, fast, seed)
        except NothingSeen:
            # So few steps show nothing. The careful look refuses where as many as asked for do not either.
            judge = PanelJudge.of(subject, recogniser, few, sampling, seed)
        screened = [judge(name, erasure) for name, erasure in _shown(erasures, "screening erasures")]
        names = [t.name for t in surest(screened, selection)][:FINALISTS]
    careful = tested or panel(concept, images=images, others=images * 4 // 3, seed=seed)
    judge = PanelJudge.of(subject, recogniser, careful, sampling, seed).telling()
    tried: list[Tried] = []
    for name, erasure in _shown({name: erasures[name] for name in names}, "trying erasures"):
        tried.append(judge(name, erasure))
        if selection.reached(tried[-1:]):
            break  # nothing later in the order can be chosen over it
    chosen = selection.best(tried) or max(tried, key=Tried.retention)
    return Choice.of(chosen, erasures, tried, screened, selection)


def surest(tried: Sequence[Tried], selection: Selection) -> list[Tried]:
    """In order of falling certainty: those that keep the floor first, then by `shortfall`, then by `doubt`."""
    return sorted(tried, key=lambda t: (not selection.keeps_floor(t), round(selection.shortfall(t), 6), t.doubt))


def _shown(erasures: Mapping[str, Erasure], what: str):
    return track(erasures.items(), what, console=Console(stderr=True), transient=True)
