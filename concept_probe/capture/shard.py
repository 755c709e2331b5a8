"""One file of captured rows: written whole or not at all, checked before it is believed, read in place."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<i2", "I64": "<i8", "I32": "<i4"}
UNFINISHED = ".unfinished"


class DamagedShard(ValueError):
    """A shard that is not what was written; the message names the file and the check that failed."""


def replace_text(path: Path, text: str) -> None:
    """Write a text file beside its place, then move it there."""
    beside = path.with_name(path.name + UNFINISHED)
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def write(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write a safetensors file beside its place, then move it there; its size and hash as {bytes, sha256}."""
    beside = path.with_name(path.name + UNFINISHED)
    save_file(dict(tensors), beside)
    with beside.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = beside.stat().st_size
    beside.replace(path)
    return {"bytes": size, "sha256": digest}


def check(path: Path, record: Mapping[str, Any]) -> None:
    """Compare a file with its record {bytes, sha256}.

    Raises DamagedShard if it is missing, of another size or of other content.
    """
    mend = "capture into a new folder, or go on without it: Activations.open(folder).good()"
    if not path.is_file():
        raise DamagedShard(f"shard {path} failed the check 'exists'; {mend}")
    size = path.stat().st_size
    if size != record["bytes"]:
        raise DamagedShard(
            f"shard {path} failed the check 'size': {size} bytes, {record['bytes']} were written; {mend}"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != record["sha256"]:
        raise DamagedShard(f"shard {path} failed the check 'sha256': {digest}, written {record['sha256']}; {mend}")


def mapped(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, memory-mapped: a row costs memory when it is read, and not before.

    A write to them changes the copy in memory and never the file.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    out = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start = 8 + length + entry["data_offsets"][0]
        shape = tuple(entry["shape"])
        array = np.memmap(path, dtype=_NUMPY[entry["dtype"]], mode="c", offset=start, shape=shape)
        tensor = torch.from_numpy(array)
        out[name] = tensor.view(torch.bfloat16) if entry["dtype"] == "BF16" else tensor
    return out
