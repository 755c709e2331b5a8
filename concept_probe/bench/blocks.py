"""Rows of a sweep as numbers per block: one block is a concept with a seed, measured alike for every eraser."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from concept_probe.bench.grid import NEVER_TAUGHT, NONE
from concept_probe.bench.store import Row

Block = tuple[str, int]
"""Concept and seed."""
Counts = tuple[int, int]
"""Hits and n."""
OTHERS = ("neighbours", "unrelated")
WORDS = ("paraphrases", "implicit")


@dataclass(frozen=True)
class Measured:
    """Everything that one eraser's rows say, by block."""

    after: Mapping[Block, Mapping[str, Counts]] = field(default_factory=lambda: defaultdict(dict))
    """Per kind of prompt, and `across`."""
    before: Mapping[Block, Mapping[str, Counts]] = field(default_factory=lambda: defaultdict(dict))
    attacks: Mapping[str, dict[Block, Counts]] = field(default_factory=lambda: defaultdict(dict))
    own: Mapping[str, dict[Block, Counts]] = field(default_factory=lambda: defaultdict(dict))
    """Controls that the attacks brought themselves."""
    values: Mapping[Block, Row] = field(default_factory=dict)
    """The rows without attack."""


def measured(rows: Iterable[Row]) -> dict[str, Measured]:
    """Finished rows by eraser, in the order in which they come."""
    out: dict[str, Measured] = {}
    for row in rows:
        if row.status != "done":
            continue
        of = out.setdefault(row.eraser, Measured(values={}))
        block = (row.concept, row.seed)
        if row.attack != NONE:
            of.attacks[row.attack][block] = _pair(row.values["success"])
            if "control" in row.values:
                of.own[row.attack][block] = _pair(row.values["control"])
            continue
        of.values[block] = row  # pyright: ignore[reportIndexIssue]  a dict, made above
        for side, kept in (("before", of.before), ("after", of.after)):
            counts = {kind: _pair(c) for kind, c in row.values[side].items()}
            if f"across {side}" in row.values:
                counts["across"] = _pair(row.values[f"across {side}"])
            kept[block] = counts  # pyright: ignore[reportIndexIssue]
    return out


def _pair(counts: Sequence[int]) -> Counts:
    return int(counts[0]), int(counts[1])


def pooled(counts: Mapping[str, Counts], kinds: Sequence[str]) -> Counts | None:
    """Hits and n of several kinds together; None where none of them was asked."""
    there = [counts[k] for k in kinds if k in counts]
    return (sum(h for h, _ in there), sum(n for _, n in there)) if there else None


def table(several: Sequence[Counts]) -> Tensor:
    """(blocks, n) rates, one row per block, as `Bootstrap.rate` takes them: a block is drawn whole."""
    width = max(1, round(sum(n for _, n in several) / len(several)))
    return torch.tensor([[h / n] * width for h, n in several], dtype=torch.float64)


def control_of(everything: Mapping[str, Measured], mine: Measured, attack: str) -> dict[Block, Counts]:
    """What a success of `attack` is compared with: the twin's where the sweep has one, else the attack's own control."""
    twin = everything.get(NEVER_TAUGHT)
    return dict(twin.attacks.get(attack, {}) if twin is not None else mine.own.get(attack, {}))
