"""The notebook on erasers reads stored rows, and runs from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

from concept_probe.types import Leaderboard
from tests.notebooks.cells import code_cells, holds_calls_alone

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "03_which_erasure_holds.ipynb"


def test_it_holds_calls_and_no_logic_and_no_outputs():
    holds_calls_alone(NOTEBOOK)


@pytest.mark.slow
def test_every_cell_runs_on_the_stored_rows(monkeypatch):
    pytest.importorskip("IPython")
    monkeypatch.chdir(NOTEBOOK.parent)
    names: dict = {}
    for cell in code_cells(NOTEBOOK):
        exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    board = names["board"]
    assert isinstance(board, Leaderboard) and len(board.standings) >= 20 and len(board.attacks) >= 10
    assert {s.name for s in board.standings if s.part == "ours"} == set(names["ours"])
