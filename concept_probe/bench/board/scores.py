"""Rows of a sweep as numbers per block: one block is a concept with a seed, measured alike for every eraser."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from concept_probe.bench.sweep.grid import NEVER_TAUGHT, NONE
from concept_probe.bench.sweep.store import SweepRow

ConceptAndSeed = tuple[str, int]
"""Concept and seed."""
HitsOfN = tuple[int, int]
"""Hits and n."""
ASK_FOR_IT = ("paraphrases", "implicit")


@dataclass(frozen=True)
class BlockScores:
    """Everything that one eraser's rows say, by block."""

    after: Mapping[ConceptAndSeed, Mapping[str, HitsOfN]] = field(default_factory=lambda: defaultdict(dict))
    """Per kind of prompt, and `across`."""
    before: Mapping[ConceptAndSeed, Mapping[str, HitsOfN]] = field(default_factory=lambda: defaultdict(dict))
    attacks: Mapping[str, dict[ConceptAndSeed, HitsOfN]] = field(default_factory=lambda: defaultdict(dict))
    own: Mapping[str, dict[ConceptAndSeed, HitsOfN]] = field(default_factory=lambda: defaultdict(dict))
    """Controls that the attacks brought themselves."""
    areas: Mapping[str, dict[ConceptAndSeed, float]] = field(default_factory=lambda: defaultdict(dict))
    """Mean success along the curve of each attack, see `area`."""
    values: Mapping[ConceptAndSeed, SweepRow] = field(default_factory=dict)
    """The rows without attack."""


def blocks_of(rows: Iterable[SweepRow]) -> dict[str, BlockScores]:
    """Finished rows by eraser, in the order in which they come."""
    out: dict[str, BlockScores] = {}
    for row in rows:
        if row.status != "done":
            continue
        of = out.setdefault(row.eraser, BlockScores(values={}))
        block = (row.concept, row.seed)
        if row.attack != NONE:
            of.attacks[row.attack][block] = _pair(row.values["success"])
            if "curve" in row.values:
                of.areas[row.attack][block] = area(row.values["curve"])
            if row.values.get("control") is not None:
                of.own[row.attack][block] = _pair(row.values["control"])
            continue
        of.values[block] = row  # pyright: ignore[reportIndexIssue]  a dict, made above
        for side, kept in (("before", of.before), ("after", of.after)):
            counts = {kind: _pair(c) for kind, c in row.values[side].items()}
            if f"across {side}" in row.values:
                counts["across"] = _pair(row.values[f"across {side}"])
            kept[block] = counts  # pyright: ignore[reportIndexIssue]
    return out


def common_blocks(mine: BlockScores, blocks: frozenset[ConceptAndSeed]) -> BlockScores:
    """The rows without attack of these blocks only, where all of them are there; else as it is."""
    if not blocks or not blocks <= mine.values.keys():
        return mine
    after, before = ({b: of[b] for b in of if b in blocks} for of in (mine.after, mine.before))
    return replace(mine, after=after, before=before, values={b: r for b, r in mine.values.items() if b in blocks})


def _pair(counts: Sequence[int]) -> HitsOfN:
    return int(counts[0]), int(counts[1])


def area(curve: Sequence[tuple[float, float]]) -> float:
    """The area under a curve of (budget, success), by trapezoids, over the budget's length: the mean success on the way.

    A single point is its own mean.

    >>> area([(0, 0.0), (10, 1.0), (20, 1.0)])
    0.75
    """
    length = curve[-1][0] - curve[0][0]
    if not length:
        return sum(y for _, y in curve) / len(curve)
    return sum((b - a) * (y + z) / 2 for (a, y), (b, z) in pairwise(curve)) / length


def area_control(everything: Mapping[str, BlockScores], mine: BlockScores, attack: str) -> dict[ConceptAndSeed, float]:
    """What an area is compared with: the twin's where the sweep has one, else the attack's own control all the way."""
    twin = everything.get(NEVER_TAUGHT)
    if twin is not None:
        return dict(twin.areas.get(attack, {}))
    return {block: hits / n for block, (hits, n) in mine.own.get(attack, {}).items()}


def pooled(counts: Mapping[str, HitsOfN], kinds: Sequence[str]) -> HitsOfN | None:
    """Hits and n of several kinds together; None where none of them was asked."""
    there = [counts[k] for k in kinds if k in counts]
    return (sum(h for h, _ in there), sum(n for _, n in there)) if there else None


def counted(mine: BlockScores, name: str) -> dict[ConceptAndSeed, dict[str, HitsOfN]]:
    """One value of the rows that is hits and n, by block, as the only kind `all`; rows without it are left out."""
    return {block: {"all": _pair(row.values[name])} for block, row in mine.values.items() if name in row.values}


def table(several: Sequence[HitsOfN]) -> Tensor:
    """(blocks, n) rates, one row per block, as `Bootstrap.rate` takes them: a block is drawn whole."""
    width = max(1, round(sum(n for _, n in several) / len(several)))
    return torch.tensor([[h / n] * width for h, n in several], dtype=torch.float64)


def with_control(everything: Mapping[str, BlockScores], mine: BlockScores) -> dict[str, dict[ConceptAndSeed, HitsOfN]]:
    """Attacks on an eraser in the blocks where there is something to compare a success with; others are left out."""
    both = {a: {b: x for b, x in of.items() if b in control_of(everything, mine, a)} for a, of in mine.attacks.items()}
    return {a: of for a, of in both.items() if of}


def control_of(everything: Mapping[str, BlockScores], mine: BlockScores, attack: str) -> dict[ConceptAndSeed, HitsOfN]:
    """What a success of `attack` is compared with: the twin's where the sweep has one, else the attack's own control."""
    twin = everything.get(NEVER_TAUGHT)
    return dict(twin.attacks.get(attack, {}) if twin is not None else mine.own.get(attack, {}))
