"""Folders: what is named inside one stays inside, one writer at a time, and one thing in each."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from concept_probe.storage.errors import FolderInUse, WrongFile

FOLDER_MARKS = {
    "manifest.json": "a capture",
    "training.safetensors": "an autoencoder",
    "cfg.json": "an autoencoder",
    "edit.json": "an edit",
    "found.json": "what was found",
    "attention.json": "attention maps",
    "values.jsonl": "an attribution",
}
"""Name of a file to what a folder with it holds."""

_held = threading.local()


def inside(folder: Path, name: str, what: str, *, links: bool = False) -> Path:
    """The place called `name` in `folder`; WrongFile, calling it `what`, where the name leads anywhere else.

    A name is one or more parts with `/` between them, none of them `..` or empty. Links are followed to see where they
    lead, unless `links` lets them lead anywhere.
    """
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    plain = bool(parts) and "/".join(parts) == name and not {"..", "/"} & set(parts)
    if not plain or any(c in name for c in "\\\0") or (os.name == "nt" and ":" in name):
        raise WrongFile(folder, f"{what} {name!r} is no name inside the folder", "give a plain name")
    place = folder / name
    if not links and not place.resolve().is_relative_to(folder.resolve()):
        raise WrongFile(folder, f"{what} {name!r} is a link that leads out of the folder", "give a plain name")
    return place


@contextmanager
def only_writer(folder: Path, what: str) -> Iterator[None]:
    """Keep others from writing into `folder`, which is made, until the block ends; `what` is what is written.

    >>> with only_writer(folder, "an edit"):
    ...     write_tensors(folder / "edit.safetensors", tensors)

    Raises FolderInUse at once where another process or thread is in such a block, WrongFile where the folder is that
    of another thing (`FOLDER_MARKS`). The lock is the system's, on the folder itself: no file is left, and it ends with its
    process, however that ends. One thread may enter it again. Systems without such locks (Windows) have none.
    """
    new = not folder.exists()
    if not new and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, and {what} is written into a folder; give another place")
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)) if os.name != "nt" else None
    try:
        if descriptor is None:
            refuse_another_thing(folder, what)
            yield
            return
        about = os.fstat(descriptor)
        mine, key = _held.__dict__.setdefault("folders", set()), (about.st_dev, about.st_ino)
        if key in mine:
            yield
            return
        _lock(descriptor, folder, what)
        mine.add(key)
        try:
            refuse_another_thing(folder, what)
            yield
        finally:
            mine.discard(key)
    finally:
        if new:
            with suppress(OSError):
                folder.rmdir()  # nothing was written after all
        if descriptor is not None:
            os.close(descriptor)  # and the lock with it


def _lock(descriptor: int, folder: Path, what: str) -> None:
    import fcntl  # only POSIX has it

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FolderInUse(
            f"{folder} is being written by another process or thread, so {what} was not begun; wait for its end, or "
            "give another folder"
        ) from None
    except OSError as error:
        warnings.warn(
            f"{folder}: its file system has no locks ({error.strerror}); see to it that nothing else writes there",
            stacklevel=4,
        )


def refuse_another_thing(folder: Path, what: str) -> None:
    """WrongFile where `folder` holds another thing than `what`, of those in `FOLDER_MARKS`."""
    there = {held: name for name, held in FOLDER_MARKS.items() if (folder / name).is_file()}
    if what in FOLDER_MARKS.values() and what not in there:
        for held, name in there.items():
            mend = f"a folder is one thing: write {what} into another one; nothing was written"
            raise WrongFile(folder, f"it holds {held} ({name})", mend)
