"""Rows of a sweep on disk: one JSON object a line, appended whole, and claims that keep processes apart."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from concept_probe.storage import append_line, text_sha256

Status = Literal["done", "failed"]


@dataclass(frozen=True)
class SweepRow:
    """One finished cell of a sweep."""

    key: str
    """Names what was measured: the same key, the same result."""
    eraser: str
    concept: str
    attack: str
    """`none` for the evaluation without an attack."""
    seed: int
    status: Status
    values: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, as values that JSON can hold; empty where the cell failed."""
    error: str = ""
    """Why the cell failed."""
    seconds: float = 0.0
    """Wall time of the cell, without the fit."""


class RowStore:
    """A JSONL file of rows. Any number of processes may append to it and claim cells of it.

    Claims and appends are record locks of `FILE.lock` (POSIX, so not on Windows): the system drops them when a
    process ends, however it ends, and a cell of a killed process is free again. Within one process claims do not
    exclude each other.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def rows(self) -> dict[str, SweepRow]:
        """Every row by key; the last one of a key counts. A line that is cut short or no JSON is left out."""
        out: dict[str, SweepRow] = {}
        if not self.path.is_file():
            return out
        for line in self.path.read_bytes().split(b"\n"):
            row = _parsed(line)
            if row is not None:
                out[row.key] = row
        return out

    def append(self, row: SweepRow) -> None:
        """Write one line and flush it to the disk; what a killed process left of a line before it is cut off."""
        with self._lock(0, wait=True):
            append_line(self.path, json.dumps(asdict(row), ensure_ascii=False, sort_keys=True))

    @contextlib.contextmanager
    def claim(self, key: str, *, wait: bool = False) -> Iterator[bool]:
        """Yields whether `key` is this process's for the length of the block; with `wait`, after waiting for it."""
        with self._lock(_place(key), wait=wait) as mine:
            yield mine

    @contextlib.contextmanager
    def _lock(self, place: int, *, wait: bool) -> Iterator[bool]:
        import fcntl  # only POSIX has it, and only a sweep needs it

        descriptor = self._descriptor()
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, place)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, place)

    def _descriptor(self) -> int:
        # One descriptor for as long as the process lives: closing any of them drops all locks of the file.
        lock = self.path.with_name(self.path.name + ".lock").absolute()
        if (os.getpid(), lock) not in _OPEN:
            lock.parent.mkdir(parents=True, exist_ok=True)
            _OPEN[os.getpid(), lock] = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        return _OPEN[os.getpid(), lock]


_OPEN: dict[tuple[int, Path], int] = {}
"""Lock files that a process holds open, by process."""


def _place(key: str) -> int:
    """A byte of the lock file for a key; byte 0 is that of appends."""
    return 1 + int(text_sha256(key)[:14], 16)


def _parsed(line: bytes) -> SweepRow | None:
    try:
        return SweepRow(**json.loads(line))
    except (ValueError, TypeError):  # a line cut short, or one of another program
        return None
