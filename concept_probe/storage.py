"""The one writer of files: whole or absent, checked when read, never pickled; and the one home of hashing.

A file is written beside its place under a name of its own, flushed to the disk, and renamed; the folder is flushed
too, so that what is written later never outlives what was written before it. A reader sees the old file or the new
one, however many write it and whenever one of them is killed. What a killed writer leaves ends in `UNFINISHED`.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")
UNFINISHED = ".part"
"""How names of files end that are being written, or were when their writer was killed."""
PART = 2**26
"""Bytes of a tensor that are copied at a time to be hashed."""


class CorruptFile(ValueError):
    """A file is not what was written; the message names it and the check that failed."""

    def __init__(self, path: Path, check: str, mend: str) -> None:
        super().__init__(f"{path}: {check}; {mend}")
        self.path = path


def write_bytes(path: Path, data: bytes) -> None:
    """Make `path` hold `data`, and nothing in between. Folders that are missing are made, as by all that write here."""
    with _written(path) as beside:
        beside.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(
    path: Path, value: object, *, indent: int = 1, sort_keys: bool = False, default: Callable[[Any], Any] | None = None
) -> None:
    """As `write_text`; words stay readable in any script. What JSON can't hold is written as `default` of it.

    TypeError for such a value where there is no `default`.
    """
    text = json.dumps(value, indent=indent, sort_keys=sort_keys, default=default, ensure_ascii=False)
    write_text(path, text + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """As `write_bytes`, as safetensors; tensors that share memory are written apart."""
    whole: dict[str, Tensor] = {}
    held: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        whole[name] = plain.clone() if place in held else plain
        held.add(place)
    with _written(path) as beside:
        save_file(whole, beside, metadata=None if metadata is None else dict(metadata))


def write_sealed(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """As `write_tensors`; the metadata gains `sha256`, the tensors' `content_sha256`, which `read_tensors` checks."""
    write_tensors(path, tensors, {**metadata, "sha256": content_sha256(tensors)})


def append_line(path: Path, line: str) -> None:
    """Add one line to a file of lines, whole or not at all; what a killed writer left of one before it is cut off.

    Processes that append to one file take turns by a lock of their own. ValueError for more than one line.
    """
    if "\n" in line:
        raise ValueError(f"{path}: {line!r} holds more than one line; append them one by one")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        end = _end_of_lines(file)
        file.truncate(end)
        try:
            left = memoryview(f"{line}\n".encode())
            while left:
                left = left[file.write(left) or 0 :]
        except BaseException:
            file.truncate(end)
            raise
        os.fsync(file.fileno())


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Remove what killed writers of the file `name` (of any file, without one) left in `folder`; for its only writer."""
    for path in folder.glob(f"{name}*{UNFINISHED}"):
        path.unlink(missing_ok=True)


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """The object in a JSON file. FileNotFoundError; CorruptFile, ending in `mend`, where it is cut or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFile(path, f"not whole JSON ({error})", mend) from None
    if not isinstance(value, dict):
        raise CorruptFile(path, f"a JSON {type(value).__name__}, not an object", mend)
    return value


def read_tensors(path: Path, mend: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. CorruptFile, ending in `mend`, where it was cut or altered."""
    refuse_pickle(path)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise CorruptFile(path, f"not a whole safetensors file ({error})", mend) from None
    written = metadata.pop("sha256", None)
    if written is not None and written != (found := content_sha256(tensors)):
        raise CorruptFile(path, f"sha256 of its tensors is {found}, {written} was written", mend)
    return tensors, metadata


def read_arrays(path: Path, mend: str) -> dict[str, Tensor]:
    """Arrays of an npz file as tensors; arrays of objects, which are pickles, are refused. CorruptFile where it is cut."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(np.ascontiguousarray(file[name])) for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptFile(path, f"not a whole npz file of numbers ({error})", mend) from None


def check_file(path: Path, sha256: str, by: str, mend: str) -> None:
    """CorruptFile, ending in `mend`, where the file at `path` hasn't the hash that `by`, another file, says."""
    found = file_sha256(path)
    if found != sha256:
        raise CorruptFile(path, f"truncated or altered: sha256 is {found}, {by} says {sha256}", mend)


def refuse_pickle(path: Path) -> None:
    """ValueError for a pickle: loading one runs whatever code it holds. The message has the lines that convert it."""
    if path.suffix in PICKLES:
        raise ValueError(
            f"{path} is a pickle, which can run code when loaded; convert it to safetensors first, with torch's reader "
            f"of plain tensors: t = torch.load({path.name!r}, weights_only=True); t = t.get('state_dict', t); "
            f"safetensors.torch.save_file({{n: x.contiguous() for n, x in t.items() if torch.is_tensor(x)}}, "
            f"{path.with_suffix('.safetensors').name!r})"
        )


def bytes_sha256(data: bytes) -> str:
    """Hex sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def text_sha256(text: str) -> str:
    """Hex sha256 of a text in UTF-8."""
    return bytes_sha256(text.encode())


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes, without holding them."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_sha256(tensors: Iterable[tuple[str, Tensor]], before: str = "") -> str:
    """Hex sha256 over `before`, then name, shape, type and bytes of each tensor in the order given: which weights.

    What lies on another device, or scattered in memory, is copied in pieces of at most `PART` bytes.
    `Subject.weight_hash` and `erasure.provenance.content_hash` are made of it.
    """
    sha = hashlib.sha256(before.encode())
    for name, tensor in tensors:
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        for part in _parts_of(tensor):
            sha.update(part)
    return sha.hexdigest()


def content_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over names, types, shapes and bytes, in the order of the names: what a sealed file holds."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        for part in _parts_of(tensor):
            sha.update(part)
    return sha.hexdigest()


def _parts_of(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of a tensor where Python can read them: in place, or else copied in pieces of at most `PART` bytes."""
    plain = tensor.detach()
    size = plain.numel() * plain.element_size()
    in_place = plain.device.type == "cpu" and plain.is_contiguous()
    rows = len(plain) if plain.ndim and not in_place and size > PART else 1
    for part in plain.split(max(1, rows * PART // size)) if rows > 1 else (plain,):
        yield part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A place beside `path`; what is there when the block ends well is flushed and takes the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{UNFINISHED}")
    try:
        yield beside
        _flush(beside)
        beside.replace(path)
        _flush(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # there a rename is flushed with its file, and no folder can be opened
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _end_of_lines(file: Any) -> int:
    """Where the last whole line of an open file ends."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return 0
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return end
    file.seek(0)
    return file.read().rfind(b"\n") + 1
