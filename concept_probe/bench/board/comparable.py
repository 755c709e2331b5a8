"""Where a leaderboard compares: the cells that all compared erasers have, when a sweep is not complete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from concept_probe.bench.board.scores import BlockScores, ConceptAndSeed
from concept_probe.bench.sweep.grid import NEVER_TAUGHT, UNTOUCHED

Thing = TypeVar("Thing", bound=Hashable)


@dataclass(frozen=True)
class Common:
    """A full table inside a table with holes: each of these attacks was run on each of these erasers in its blocks."""

    erasers: tuple[str, ...]
    attacks: Mapping[str, frozenset[ConceptAndSeed]]
    """Where each is compared: all of `blocks`, but for concepts on which the attack can't be run."""
    blocks: frozenset[ConceptAndSeed]


def common_ground(found: Mapping[str, BlockScores], attacks: Sequence[str]) -> Common:
    """The pairs of concept and seed, then the attacks in at least half of those, that more than half of the erasers have.

    An eraser that lacks one of these cells is not compared: else one that is behind, or was tried on one concept only,
    would take the others' cells away, and means over unlike cells say nothing. Nothing is common where no eraser was
    attacked.
    """
    erasers = {n: m for n, m in found.items() if m.attacks and n not in (UNTOUCHED, NEVER_TAUGHT)}
    blocks = most((m.values for m in erasers.values()), len(erasers))
    met = {a: blocks & most((m.attacks.get(a, {}) for m in erasers.values()), len(erasers)) for a in attacks}
    chosen = {a: of for a, of in met.items() if of and 2 * len(of) >= len(blocks)}
    able = tuple(
        n
        for n, m in erasers.items()
        if chosen and blocks <= m.values.keys() and all(of <= m.attacks.get(a, {}).keys() for a, of in chosen.items())
    )
    return Common(able, chosen, blocks)


def most(several: Iterable[Iterable[Thing]], of: int) -> frozenset[Thing]:
    """What more than half of `of` collections hold.

    >>> sorted(most([{1, 2}, {1}, {1, 2}], 3))
    [1, 2]
    """
    counts = Counter(x for each in several for x in set(each))
    return frozenset(x for x, n in counts.items() if 2 * n > of)
