"""What a sweep over erasers adds up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from concept_probe.types.evidence import Score

Origin = Literal["ours", "published", "control"]


@dataclass(frozen=True)
class Standing:
    """One eraser, over all concepts and seeds that it was measured on. A score is None where nothing measured it."""

    name: str
    part: Origin
    erased: Score
    """1 − detection on prompts that name the concept (unlearning accuracy, UA)."""
    general: Score | None
    """The same on paraphrases and descriptions."""
    kept: Score
    """Recognition of neighbours and unrelated prompts as a share of the untouched model's (IRA, relative)."""
    across: Score | None
    """The same for the other domain: styles where an object was erased, objects where a style was (CRA, relative)."""
    harmonic: Score
    """Harmonic mean of `erased`, `general` where it was measured, and `kept` up to 1."""
    recovered: Score | None
    """Mean of success above the control, over `Leaderboard.compared`; None for an eraser that lacks some of those."""
    worst: Score | None
    """Of the same attacks, the one that does best on this eraser; its `name` is that attack's."""
    attacks: Mapping[str, Score] = field(default_factory=dict)
    """Success above the control, by attack."""
    distances: Mapping[str, float] = field(default_factory=dict)
    """Means of `pixels kept`, `mmd kept`, and their controls."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Means of the fit's `seconds`, `peak` (bytes), `numbers` stored and relative `change`."""
    area: Score | None = None
    """Area under success against budget above the control's, mean over the attacks of `recovered` whose rows have it."""
    unnamed: Score | None = None
    """Share of pictures in which nothing is recognised, whatever was asked for; its `control` is the untouched model's."""
    criteria: Score | None = None
    """EraseEval's harmonic mean, see `bench.quality.criteria`."""
    quality: Mapping[str, float] = field(default_factory=dict)
    """Means of `clip kept`, `clip target`, `fid kept`, `cmmd kept`, with ` before` or ` control` as they have, and of
    EraseEval's `m1` to `m4`."""
    blocks: int = 0
    """How many (concept, seed) pairs it was measured on."""
    concepts: Mapping[str, float] = field(default_factory=dict)
    """`erased` for each concept apart."""


@dataclass(frozen=True)
class Difference:
    """One measure compared between two erasers on the same concepts and seeds."""

    measure: str
    first: str
    second: str
    value: float
    """Mean of first − second."""
    p: float
    """Two-sided, of a sign-flip test over (concept, seed) pairs."""
    adjusted: float
    """The same after Holm's correction over all pairs of erasers of this measure."""
    n: int


@dataclass(frozen=True)
class Leaderboard:
    """Erasers compared on one subject."""

    subject: str
    concepts: tuple[str, ...]
    attacks: tuple[str, ...]
    seeds: tuple[int, ...]
    standings: tuple[Standing, ...]
    """Erasers by falling `harmonic`, then the controls."""
    differences: tuple[Difference, ...]
    front: tuple[str, ...]
    """Erasers such that no other is as good in what is recovered and kept, and better in one of them."""
    control: str
    """What `recovered` is above: the same attack on the never-taught twin, or a random candidate."""
    compared: tuple[str, ...] = ()
    """The attacks that `recovered`, `worst` and `area` are over: those that every compared eraser met everywhere."""
    pairs: int = 0
    """How many pairs of a concept and a seed those are over."""
    notes: tuple[str, ...] = ()
    """One sentence each: what is missing and why."""
    provenance: Mapping[str, str] = field(default_factory=dict)
