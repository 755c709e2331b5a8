"""Files are written beside their place, flushed, and renamed."""

from __future__ import annotations

import json
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNFINISHED = ".part"
"""How names of files end that are being written, or were when their writer was killed."""
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Opens the file of that very name or nothing, for this process alone, and its bytes as they are."""
RIGHTS = 0o666
"""Of a new file, before the umask takes from them."""


def write_bytes(path: Path, data: bytes) -> None:
    """Make `path` hold `data`, and nothing in between. Folders that are missing are made, as by all that write here.

    Its rights are those that the umask leaves. A symbolic link of that name is replaced, and what it names is not
    touched. OSError where it can't be written, on a full disk for one: then `path` is as it was.
    """
    with written(path) as descriptor:
        write_all(descriptor, data)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(
    path: Path, value: object, *, indent: int = 1, sort_keys: bool = False, default: Callable[[Any], Any] | None = None
) -> None:
    """As `write_text`; words stay readable in any script. What JSON can't hold is written as `default` of it.

    TypeError for such a value where there is no `default`.
    """
    write_text(path, json_text(value, indent=indent, sort_keys=sort_keys, default=default))


def json_text(
    value: object, *, indent: int = 1, sort_keys: bool = False, default: Callable[[Any], Any] | None = None
) -> str:
    """The text that `write_json` writes."""
    return json.dumps(value, indent=indent, sort_keys=sort_keys, default=default, ensure_ascii=False) + "\n"


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Remove what killed writers of the file `name` (of any file, without one) left in `folder`; for its only writer."""
    ours = re.compile(rf"{re.escape(name) if name else '.+'}(\.[0-9a-f]{{1,12}})?{re.escape(UNFINISHED)}")
    for path in folder.iterdir() if folder.is_dir() else ():
        if ours.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
            path.unlink(missing_ok=True)


@contextmanager
def written(path: Path) -> Iterator[int]:
    """A descriptor of a new file beside `path`; when the block ends well, the file is flushed and takes the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{UNFINISHED}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, RIGHTS)
    try:
        try:
            yield descriptor
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(path)
        _flush_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`, in as many calls as it takes."""
    left = memoryview(data)
    if left.nbytes:  # an empty view has no shape to cast
        left = left.cast("B")
        while left:
            left = left[os.write(descriptor, left) :]


def _flush_folder(path: Path) -> None:
    if os.name == "nt":
        return  # there a rename is flushed with its file, and no folder can be opened
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
