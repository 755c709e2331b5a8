"""Rows survive whatever happens to the process that writes them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from concept_probe.bench import RowStore, SweepRow

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="claims are POSIX record locks")


def row(key: str, seconds: float = 0.0) -> SweepRow:
    return SweepRow(key, "uce", "camel", "none", 0, "done", {"é": [1, 2]}, "", seconds)


def test_a_row_comes_back_as_it_was_written(tmp_path):
    store = RowStore(tmp_path / "deep" / "rows.jsonl")
    assert store.rows() == {}
    store.append(row("a"))
    assert store.rows() == {"a": row("a")}


def test_the_last_row_of_a_key_counts(tmp_path):
    store = RowStore(tmp_path / "rows.jsonl")
    for seconds in (1.0, 2.0):
        store.append(row("a", seconds))
    assert store.rows() == {"a": row("a", 2.0)}


@pytest.mark.parametrize("left", [b'{"key": "b", "eraser"', b"\xff\xfe", b"null", b"{}"])
def test_a_line_cut_short_is_left_out_and_then_cut_off(left, tmp_path):
    store = RowStore(tmp_path / "rows.jsonl")
    store.append(row("a"))
    with store.path.open("ab") as file:
        file.write(left)
    assert set(store.rows()) == {"a"}
    store.append(row("c"))
    assert set(store.rows()) == {"a", "c"}
    assert left not in store.path.read_bytes()


def _append(path: Path, name: str) -> None:
    for i in range(50):
        RowStore(path).append(row(f"{name}{i}"))


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    path = tmp_path / "rows.jsonl"
    several = [context.Process(target=_append, args=(path, name)) for name in "abc"]
    for process in several:
        process.start()
    for process in several:
        process.join()
    assert len(RowStore(path).rows()) == 150
    assert path.read_bytes().count(b"\n") == 150


HOLD = """
import sys, time
from concept_probe.bench import RowStore
with RowStore(sys.argv[1]).claim("cell") as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_claim_keeps_another_process_out_and_ends_with_the_process(tmp_path):
    store = RowStore(tmp_path / "rows.jsonl")
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(store.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        with store.claim("cell") as mine:
            assert not mine
        with store.claim("another cell") as mine:
            assert mine
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        until = time.monotonic() + 10
        free = False
        while not free and time.monotonic() < until:
            with store.claim("cell") as free:
                pass
        assert free
    finally:
        other.kill()
