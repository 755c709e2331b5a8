"""Rows of a sweep on disk: one JSON object a line, appended whole, and claims that keep processes apart."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from concept_probe.storage import (
    SEAL,
    append_line,
    check_fields,
    check_seal,
    holds_whole_object,
    open_here,
    parse_json,
    sealed,
    text_sha256,
    without_mark,
)
from concept_probe.storage.schema import Fields, Free, Number, Table, Text, Whole

Status = Literal["done", "failed", "does not apply"]


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
    """What was measured, as values that JSON can hold; empty where nothing was."""
    error: str = ""
    """Why the cell failed, or does not apply."""
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
        """Every row by key; the last one of a key counts.

        A last line that a killed process left cut short is left out; one that lacks its newline alone is a row. Blank
        lines and a mark of byte order, as editors leave them, are passed over. Raises CorruptFile, with the number of
        the line, for any other line that is none or was altered.
        """
        if not self.path.is_file():
            return {}
        lines = [without_mark(line) for line in self.path.read_bytes().split(b"\n")]
        if not holds_whole_object(lines[-1]):
            lines.pop()
        found = [_row(line, self.path, number) for number, line in enumerate(lines, 1) if line]
        return {row.key: row for row in found}

    def append(self, row: SweepRow) -> None:
        """Write one line, sealed, and flush it to the disk; what a killed process left of a line before it is cut off.

        Raises ValueError, and writes nothing, for a row that could not be read again. OSError where it can't be written:
        then the file ends as before. WrongFile for a file of other things.
        """
        line = row_as_line(row)
        with self._lock(0, wait=True):
            append_line(self.path, line, ours=_is_row, begins=b'{"attack": ')

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
        except (BlockingIOError, PermissionError):  # another process has it, in the two words that systems have for it
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
            _OPEN[os.getpid(), lock] = open_here(lock)
        return _OPEN[os.getpid(), lock]


_OPEN: dict[tuple[int, Path], int] = {}
"""Lock files that a process holds open, by process."""


def row_as_line(row: SweepRow) -> str:
    """The line of a file that a row is, sealed. ValueError for a row that could not be read again."""
    try:
        value = sealed(asdict(row), _refuse)
    except (TypeError, ValueError, RuntimeError) as error:  # a copy of a tensor, or what lies too deep: RuntimeError
        raise ValueError(f"the row can't be written: {error}") from None
    wrong = _ROW(value, "")
    if wrong is not None:
        raise ValueError(f"the row can't be written: {wrong.removeprefix('.')}")
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _refuse(value: Any) -> Any:
    kind = type(value)
    text = " ".join(repr(value).split())
    raise TypeError(
        f"{text if len(text) <= 60 else text[:57] + '...'} is of {kind.__module__}.{kind.__qualname__}, which JSON can't "
        "hold; give numbers, texts, lists and tables of Python"
    )


def _place(key: str) -> int:
    """A byte of the lock file for a key; byte 0 is that of appends."""
    return 1 + int(text_sha256(key)[:14], 16)


def _row(line: bytes, path: Path, number: int) -> SweepRow:
    """The row that a line holds, unaltered. Lines of earlier versions have no seal."""
    where, mend = f"{path}, line {number}", "delete the line, and its cell is measured again"
    value = parse_json(line, where, mend)
    check_fields(where, value, _ROW, mend, "the line")
    return SweepRow(**check_seal(where, value, mend, needed=False))


def _is_row(line: bytes) -> bool:
    """Whether a line holds a row, whole, if perhaps altered."""
    try:
        return _ROW(json.loads(line), "") is None
    except (ValueError, RecursionError):
        return False


_ROW = Fields(
    {
        "key": Text(),
        "eraser": Text(),
        "concept": Text(),
        "attack": Text(),
        "seed": Whole(least=None),
        "status": Text(get_args(Status)),
        "values": Table(Free()),
        "error": Text(),
        "seconds": Number(),
    },
    {SEAL: Text()},
)
