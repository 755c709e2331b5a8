"""Figures of sweeps and of calibrations."""

from __future__ import annotations

import json

import pytest

from concept_probe.figures import attacks, truth
from concept_probe.types import Leaderboard, Score, Standing


def standing(name: str, recovered: float | None, **by_attack: float) -> Standing:
    def score(v: float) -> Score:
        return Score("", v, v, v, 8)

    mean = None if recovered is None else score(recovered)
    return Standing(
        name, "published", score(1.0), None, score(1.0), None, score(1.0), mean, mean,
        {a: score(v) for a, v in by_attack.items()},
    )  # fmt: skip


def board(*standings: Standing) -> Leaderboard:
    return Leaderboard("tiny", ("cat",), ("pruning", "relearning"), (0,), standings, (), (), "the twin")


def test_cells_are_successes_by_attack_and_open_where_nothing_was_measured():
    drawn = json.loads(
        attacks(board(standing("b", 0.9, relearning=0.9), standing("a", 0.1, pruning=0.1))).to_json() or ""
    )
    (heat,) = drawn["data"]
    assert heat["y"] == ["a", "b"], "least recovered first"
    assert heat["z"] == [[0.1, None], [None, 0.9]] and heat["x"] == ["pruning", "relearning"]
    with pytest.raises(ValueError, match="no eraser was attacked"):
        attacks(board(standing("c", None)))


def test_every_audit_of_known_truth_is_a_point():
    drawn = truth({"present": [1.0, 0.9, 1.0], "absent": [0.1]}, threshold=0.5)
    assert [list(t.x) for t in drawn.data] == [[1.0, 0.9, 1.0], [0.1]]  # pyright: ignore[reportAttributeAccessIssue]
    assert [round(y) for t in drawn.data for y in t.y] == [0, 0, 0, 1]  # pyright: ignore[reportAttributeAccessIssue]
    assert drawn.layout.shapes[0].x0 == 0.5  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="nothing to compare"):
        truth({"present": []})
