"""Rows of a sweep on disk: one JSON object a line, appended whole, and claims that keep processes apart."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

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
        line = (json.dumps(asdict(row), ensure_ascii=False, sort_keys=True) + "\n").encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock(0, wait=True), self.path.open("a+b") as file:
            _cut(file)
            os.write(file.fileno(), line)
            os.fsync(file.fileno())

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
    return 1 + int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")


def _cut(file: Any) -> None:
    """Cut off what stands behind the last end of a line."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)


def _parsed(line: bytes) -> SweepRow | None:
    try:
        return SweepRow(**json.loads(line))
    except (ValueError, TypeError):  # a line cut short, or one of another program
        return None
