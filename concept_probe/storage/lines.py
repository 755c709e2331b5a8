"""Files of lines, which grow by one whole line at a time."""

from __future__ import annotations

import codecs
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

from concept_probe.storage.errors import WrongFile
from concept_probe.storage.writing import NO_LINK, RIGHTS, write_all


def is_json(line: bytes) -> bool:
    """Whether a line is JSON, whole."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def without_mark(line: bytes) -> bytes:
    """A line without a mark of byte order before it and blanks around it, which editors leave and which say nothing."""
    return line.strip().removeprefix(codecs.BOM_UTF8).strip()


def holds_whole_object(line: bytes) -> bool:
    """Whether a line begins with an object of JSON, whole, that says something. What was cut short never does."""
    try:
        value, _ = json.JSONDecoder().raw_decode(without_mark(line).decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and bool(value)


def append_line(path: Path, line: str, *, ours: Callable[[bytes], bool] = is_json, begins: bytes = b"") -> None:
    """Add one line to a file of lines, whole or not at all, and flush it to the disk.

    A last line that lacks its newline alone, as editors leave one, is kept: `ours` tells whether it is whole. What a
    killed writer left of one is cut off, where the line before it is `ours` or it begins as lines here do, with
    `begins`. Anything else is not cut, whole objects of other things least of all: WrongFile. So is a symbolic link,
    and what is no plain file. Blanks behind the last line, and a mark of byte order, are no line.

    Processes that append to one file take turns by a lock of their own. ValueError for more than one line. OSError
    where it can't be written, on a full disk for one: then the file ends as before.
    """
    if "\n" in line:
        raise ValueError(f"{path}: {line!r} holds more than one line; append them one by one")
    path.parent.mkdir(parents=True, exist_ok=True)
    mend = "give a file of lines that were written here, or a new one"
    descriptor = open_here(path)
    try:
        size = os.fstat(descriptor).st_size
        last, before = _last_lines(path, size)
        start, end = b"", size
        said = without_mark(last)
        if said and ours(said):
            start = b"\n"
        elif last:
            known = not said or (before and ours(before)) or said.startswith(begins) or begins.startswith(said)
            if not known or holds_whole_object(said):
                raise WrongFile(path, "its last line is none that was written here, and is not cut off", mend)
            end = size - len(last)
        os.ftruncate(descriptor, end)
        try:
            write_all(descriptor, start + f"{line}\n".encode())
            os.fsync(descriptor)
        except BaseException:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)


def open_here(path: Path) -> int:
    """A descriptor of a plain file that is written in its place, at its end; it is made where it is not there.

    WrongFile for a symbolic link, which is not followed, and for what is no plain file.
    """
    if path.is_symlink():
        raise WrongFile(path, "it is a symbolic link, which is not followed", "give the file that it names")
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0) | NO_LINK
    descriptor = os.open(path, flags, RIGHTS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise WrongFile(path, "it is no plain file", "give one, or a new name")
    return descriptor


def _last_lines(path: Path, size: int) -> tuple[bytes, bytes]:
    """What stands behind the last newline of a file, and, where something does, the last line before that is not blank."""
    if not size:
        return b"", b""
    with path.open("rb") as file:
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return b"", b""
        file.seek(0)
        whole = file.read(size)
    *rest, last = whole.split(b"\n")
    return last, next((said for line in reversed(rest) if (said := without_mark(line))), b"")
