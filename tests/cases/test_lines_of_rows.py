"""Lines of a file of rows: whose they are, where one ends, and whether it was altered."""

from __future__ import annotations

import json

import pytest

from concept_probe.bench import RowStore
from concept_probe.storage import CorruptFile, WrongFile, append_line
from tests.cases.made import row


@pytest.mark.parametrize("text", ["one\ntwo", '{"a": 1}', "[1,\n2"])
def test_what_is_not_ours_is_not_cut(text, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(WrongFile, match="its last line is none that was written here"):
        RowStore(path).append(row("a"))
    assert path.read_text() == text


def test_a_row_without_its_newline_is_a_row(tmp_path):
    store = RowStore(tmp_path / "rows.jsonl")
    store.append(row("a"))
    store.path.write_bytes(store.path.read_bytes().rstrip(b"\n"))
    assert set(store.rows()) == {"a"}
    store.append(row("b"))
    assert set(store.rows()) == {"a", "b"} and store.path.read_bytes().count(b"\n") == 2


def test_an_altered_row_is_named_by_its_line(tmp_path):
    store = RowStore(tmp_path / "rows.jsonl")
    store.append(row("a"))
    store.append(row("b"))
    store.path.write_text(store.path.read_text().replace("[1, 2]", "[1, 3]", 1))
    with pytest.raises(CorruptFile, match=r"rows\.jsonl, line 1: altered.*delete the line"):
        store.rows()


def test_rows_of_before_have_no_seal_and_are_read(tmp_path):
    from dataclasses import asdict

    append_line(tmp_path / "rows.jsonl", json.dumps(asdict(row("a"))))
    assert RowStore(tmp_path / "rows.jsonl").rows() == {"a": row("a")}
