"""Whatever a row holds, and whatever an editor did to the file, rows are read again or refused when they are written."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from concept_probe.bench import RowStore, SweepRow
from concept_probe.bench.sweep.store import Status
from concept_probe.bench.sweep.sweep import Sweep
from concept_probe.storage import CorruptFile, WrongFile
from tests.bench.cases import grid, sweep

ROW = SweepRow("a", "uce", "cat", "none", 0, "done", {"after": [1, 2]}, "", 1.0)
MARK = b"\xef\xbb\xbf"


def test_rows_of_every_status_come_back_and_are_never_cut(tmp_path):
    store = RowStore(tmp_path / "rows.jsonl")
    rows = [replace(ROW, key=status, status=status) for status in get_args(Status)]
    for row in rows:
        store.append(row)
        store.path.write_bytes(store.path.read_bytes().removesuffix(b"\n"))
    assert list(store.rows().values()) == rows


WRONG = {
    "seconds": {"seconds": math.nan},
    "tensor": {"values": {"score": torch.ones(1)}},
    "tensor with gradients": {"values": {"score": torch.ones(1, requires_grad=True) * 2}},
    "number of numpy": {"values": {"score": [np.float32(1.0)]}},
    "half a character": {"values": {"said": "\ud800"}},
    "half a character in a key": {"values": {"\ud800": 1}},
    "seed": {"seed": np.int64(1)},
    "status": {"status": "lost"},
}


@pytest.mark.parametrize("what", WRONG)
def test_a_row_that_could_not_be_read_again_is_not_written(what, tmp_path):
    store = RowStore(tmp_path / "rows.jsonl")
    store.append(ROW)
    with pytest.raises(ValueError, match="the row can't be written"):
        store.append(replace(ROW, key="b", **WRONG[what]))
    assert list(store.rows()) == ["a"]


@pytest.mark.parametrize("value", [torch.ones(1), np.float32(1.0), "\ud800"])
def test_a_cell_with_such_a_value_is_a_failed_row_and_the_sweep_goes_on(value, tmp_path, monkeypatch):
    monkeypatch.setattr(Sweep, "_measure", lambda *_: {"score": value, "waited": 0.0})
    made = sweep(tmp_path, replace(grid(methods=()), attacks=()))
    (row,) = made.run()
    assert row.status == "failed" and "the row can't be written" in row.error
    assert list(made.run()) == [] and made.store.rows() == {row.key: row}


def test_an_error_of_any_text_is_a_failed_row(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("lone \udcff")

    monkeypatch.setattr(Sweep, "_measure", broken)
    made = sweep(tmp_path, replace(grid(methods=()), attacks=()))
    (row,) = made.run()
    assert row.error == "RuntimeError: lone \\udcff" and made.store.rows() == {row.key: row}


@pytest.mark.parametrize(
    ("before", "behind"), [(MARK, b""), (b"", b"\n\n"), (b"", b"\n  "), (b"\n", b"\r\n \r\n"), (MARK, b" \n\n\t")]
)
def test_what_editors_leave_is_passed_over(before, behind, tmp_path):
    store = RowStore(tmp_path / "rows.jsonl")
    store.append(ROW)
    store.path.write_bytes(before + store.path.read_bytes() + behind)
    assert store.rows() == {"a": ROW}
    store.append(replace(ROW, key="b"))
    assert list(store.rows()) == ["a", "b"]


@pytest.mark.parametrize("later", [b'{"attack": "none", "key": "b", "new": 1}', b'{"key": "b"},'])
def test_a_whole_line_of_other_things_is_told_and_not_cut(later, tmp_path):
    store = RowStore(tmp_path / "rows.jsonl")
    store.append(ROW)
    store.path.write_bytes(store.path.read_bytes() + later)
    with pytest.raises(CorruptFile, match="line 2"):
        store.rows()
    with pytest.raises(WrongFile):
        store.append(replace(ROW, key="c"))
    assert store.path.read_bytes().endswith(later)


@pytest.mark.parametrize("before", [b"", MARK])
def test_a_first_line_cut_short_is_cut_off(before, tmp_path):
    store = RowStore(tmp_path / "rows.jsonl")
    store.path.write_bytes(before + b'{"attack": "no')
    assert store.rows() == {}
    store.append(ROW)
    assert store.rows() == {"a": ROW}
