"""What a leaderboard comes to, in a few figures that JSON can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from concept_probe.bench.board.leaderboard import beats
from concept_probe.bench.sweep.store import SweepRow
from concept_probe.types import Leaderboard


def summary_of(board: Leaderboard, rows: Sequence[SweepRow]) -> dict[str, Any]:
    """What the table comes to: erasers and attacks are those compared on the same pairs.

    An eraser of this project is on the front if no published one beats it on both recovered and kept.
    """
    published = [s for s in board.standings if s.part == "published"]
    mine = [s for s in board.standings if s.part == "ours"]
    beaten = {s.name: [o.name for o in published if beats(o, s)] for s in mine}
    held = {(d.measure, d.first, d.second) for d in board.differences if d.adjusted < 0.05}
    able = [s.name for s in mine if s.recovered is not None]
    return {
        "erasers": sum(s.recovered is not None for s in (*published, *mine)),
        "attacks": len(board.compared),
        "concepts": len(board.concepts),
        "seeds": len(board.seeds),
        "pairs": board.pairs,
        "cells": sum(r.status == "done" for r in rows),
        "failed": sum(r.status == "failed" for r in rows),
        "ours_on_front": any(not beaten[name] for name in able),
        "ours_beaten_by": beaten,
        "front": list(board.front),
        "differences_held": len(held),
    }
