"""One file of captured rows: written whole or not at all, checked before it is believed, read in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from concept_probe.storage import CorruptFile, file_sha256, tensor_entries, write_tensors

_MEND = "capture into a new folder, or go on without it: Activations.open(folder).good()"


class DamagedShard(CorruptFile):
    """A shard that is not what was written; the message names the file and the check that failed."""

    def __init__(self, path: Path, check: str, mend: str = _MEND) -> None:
        super().__init__(path, check, mend)


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write a safetensors file; its size and hash as {bytes, sha256}, by which `check_shard` knows it again."""
    write_tensors(path, tensors)
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def check_shard(path: Path, record: Mapping[str, Any]) -> None:
    """Compare a file with its record {bytes, sha256}.

    Raises DamagedShard if it is missing, of another size or of other content.
    """
    if not path.is_file():
        raise DamagedShard(path, "failed the check 'exists'")
    if (size := path.stat().st_size) != record["bytes"]:
        raise DamagedShard(path, f"failed the check 'size': {size} bytes, {record['bytes']} were written")
    if (found := file_sha256(path)) != record["sha256"]:
        raise DamagedShard(path, f"failed the check 'sha256': {found}, {record['sha256']} was written")


@dataclass(frozen=True)
class ShardContents:
    """The tensors of one file, read in place: a row costs memory when it is read, and not before."""

    path: Path
    tensors: Mapping[str, Tensor]
    """Memory-mapped, all through one mapping that keeps no file open; a write to them never reaches the file."""
    offsets: Mapping[str, int]
    """Where each tensor's bytes begin in the file."""

    def read_into(self, name: str, first: int, out: Tensor) -> None:
        """Fill `out` (m, ...) with the rows from number `first` on, by plain reads.

        A mapping faults page by page, and waits for the disk at each; one read asks for the whole run. `out` is
        contiguous. Raises DamagedShard if the file ends early.
        """
        row = self.tensors[name][0].numel() * out.element_size()
        left = out.reshape(-1).view(torch.uint8).numpy().data
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offsets[name] + first * row)
            while left:
                got = file.readinto(left)
                if not got:
                    raise DamagedShard(self.path, "failed the check 'size': it ended while it was read")
                left = left[got:]


def map_shard(path: Path) -> ShardContents:
    """Map a safetensors file into memory, without reading its tensors. CorruptFile where its header is none."""
    entries = tensor_entries(path, _MEND)
    whole = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    tensors = {name: whole[one.first : one.end].view(one.dtype).view(one.shape) for name, one in entries.items()}
    return ShardContents(path, tensors, {name: one.first for name, one in entries.items()})


def check_rows(contents: ShardContents, at: int, rows: int, width: int, columns: Sequence[str]) -> None:
    """DamagedShard where a file doesn't hold `rows` rows (rows, width) of site number `at`, and columns for each."""
    shapes = {f"{at}.x": (rows, width), **{f"{at}.{column}": (rows,) for column in columns}}
    for name, shape in shapes.items():
        found = contents.tensors.get(name)
        if found is None or tuple(found.shape) != shape:
            says = "absent" if found is None else f"of shape {tuple(found.shape)}"
            raise DamagedShard(contents.path, f"failed the check 'rows': {name} is {says}, the manifest says {shape}")
