"""Choose an erasure by measurement: of several, the one that removes the concept and keeps the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import track

from concept_probe.erase.edit import Edit
from concept_probe.erase.intervention import Intervention
from concept_probe.find.causal import Panel, hits, panel
from concept_probe.find.statistics import mean_score
from concept_probe.types import Concept, Recogniser, Sampling, Score

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class Tried:
    """What one erasure did to the pictures of the select split."""

    name: str
    gone: Score
    """Detection of the concept; its `control` is that of the untouched subject."""
    stay: Score
    """Recognition of neighbours and unrelated prompts; its `control` is that of the untouched subject."""

    def retained(self) -> float:
        """Recognition of others as a share of the untouched subject's."""
        return self.stay.value / self.stay.control if self.stay.control else 1.0


@dataclass(frozen=True)
class Choice:
    """The chosen erasure and the table it was chosen from."""

    name: str
    erasure: Intervention | Edit
    tried: tuple[Tried, ...]


@torch.no_grad()
def choose(
    erasures: Mapping[str, Intervention | Edit],
    subject: Subject,
    concept: Concept,
    *,
    recogniser: Recogniser,
    tested: Panel | None = None,
    images: int = 16,
    goal: float = 0.1,
    retain: float = 0.9,
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> Choice:
    """Make the same pictures under each erasure and take the best one.

    Best: among those that keep `retain` of the others' recognition, the first in the given order
    whose detection is at most `goal`, else the one of least detection; where none keeps `retain`,
    the one that keeps most. Order candidates from the gentlest to the strongest: those behind the
    first that reaches both marks are not tried.
    """
    if not erasures:
        raise ValueError("no erasure was given to choose from")
    tested = tested or panel(concept, images=images, seed=seed)
    before = hits(subject, tested.gone, recogniser, sampling, concept.name).mean().item()
    untouched = hits(subject, tested.stay, recogniser, sampling, None).mean().item()
    tried = []
    for name, erasure in track(erasures.items(), "trying erasures", console=Console(stderr=True), transient=True):
        with erasure.on(subject):
            seen = hits(subject, tested.gone, recogniser, sampling, concept.name)
            kept = hits(subject, tested.stay, recogniser, sampling, None)
        gone = mean_score(seen, "detection", control=before, better="lower", seed=seed)
        stay = mean_score(kept, "recognition of others", control=untouched, better="higher", seed=seed)
        tried.append(Tried(name, gone, stay))
        if gone.value <= goal and tried[-1].retained() >= retain:
            break  # nothing later in the order can be chosen over it
    best = _best(tried, goal, retain)
    return Choice(best.name, erasures[best.name], tuple(tried))


def _best(tried: Sequence[Tried], goal: float, retain: float) -> Tried:
    gentle = [t for t in tried if t.retained() >= retain]
    reached = [t for t in gentle if t.gone.value <= goal]
    if reached:
        return reached[0]
    if gentle:
        return min(gentle, key=lambda t: t.gone.value)
    return max(tried, key=lambda t: t.retained())
