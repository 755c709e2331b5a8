"""Tensors on disk, as safetensors: written here byte by byte, so that equal content gives equal files."""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from concept_probe.storage.errors import CorruptFile, MissingFile, PickledFile, refuse_pickle
from concept_probe.storage.hashing import content_sha256, tensor_parts, text_sha256
from concept_probe.storage.json_files import parse_json
from concept_probe.storage.writing import write_all, written

TENSOR_TYPES = {
    "U64": torch.uint64, "I64": torch.int64, "F64": torch.float64, "C64": torch.complex64, "F32": torch.float32,
    "U32": torch.uint32, "I32": torch.int32, "BF16": torch.bfloat16, "F16": torch.float16, "U16": torch.uint16,
    "I16": torch.int16, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""Names of safetensors to types, in the order in which tensors of them lie in a file."""
TENSOR_SEAL = "concept_probe.seal"
"""Key of the metadata under which a sealed file holds the hash of its tensors and of its other metadata."""
LONGEST_HEADER = 100_000_000
"""Bytes that the format allows a header."""
_PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How pickles begin: in an archive, as torch writes them, and bare."""


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor stands in its file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    first: int
    """Its first byte, from the beginning of the file."""
    end: int


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """As `write_bytes`, as safetensors; tensors that share memory are written apart."""
    kinds = {dtype: name for name, dtype in TENSOR_TYPES.items()}
    places = {dtype: place for place, dtype in enumerate(TENSOR_TYPES.values())}
    order = sorted(tensors, key=lambda name: (places[tensors[name].dtype], name))
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(sorted(metadata.items()))}
    at = 0
    for name in order:
        x = tensors[name]
        end = at + x.numel() * x.element_size()
        header[name] = {"dtype": kinds[x.dtype], "shape": list(x.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with written(path) as descriptor:
        write_all(descriptor, struct.pack("<Q", len(text)) + text)
        for name in order:
            for part in tensor_parts(tensors[name]):
                write_all(descriptor, part)


def write_sealed(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """As `write_tensors`, sealed: a hash over tensors and metadata, which `read_tensors` checks, joins the metadata."""
    write_tensors(path, tensors, {**metadata, TENSOR_SEAL: _seal(tensors, metadata)})


def read_tensors(path: Path, mend: str, *, sealed: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    MissingFile; PickledFile for a pickle, whatever its name; CorruptFile, ending in `mend`, where it was cut, where it
    was altered as far as its seal tells, or has none though it was written `sealed`.
    """
    tensor_entries(path, mend)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            metadata = dict(file.metadata() or {})
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever the library stumbles over, the file is none
        raise CorruptFile(path, f"not a whole safetensors file ({error})", mend) from None
    seal, old = metadata.pop(TENSOR_SEAL, None), metadata.pop("sha256", None)
    if seal is not None and old is not None:
        metadata["sha256"] = old
    if seal is not None and seal != (found := _seal(tensors, metadata)):
        raise CorruptFile(path, f"altered: the seal of its tensors and metadata is {found}, {seal} was written", mend)
    if seal is None and sealed:
        raise CorruptFile(path, "its tensors and metadata have no seal, which was written with them", mend)
    if seal is None and old is not None and old != (found := content_sha256(tensors)):
        raise CorruptFile(path, f"sha256 of its tensors is {found}, {old} was written", mend)
    return tensors, metadata


def read_arrays(path: Path, mend: str) -> dict[str, Tensor]:
    """Arrays of an npz file as tensors; arrays of objects, which are pickles, are refused. CorruptFile
    where it is cut."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(np.ascontiguousarray(file[name])) for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptFile(path, f"not a whole npz file of numbers ({error})", mend) from None


def tensor_entries(path: Path, mend: str) -> dict[str, TensorEntry]:
    """Where each tensor of a safetensors file stands; the header alone is read.

    Raises as `read_tensors` does, by what the header and the size of the file tell.
    """
    refuse_pickle(path)
    if not path.is_file():
        raise MissingFile(f"{path} {'is a folder, not a file' if path.is_dir() else 'not found'}; {mend}")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if start.startswith(_PICKLED) and not 0 < length <= LONGEST_HEADER:
            raise PickledFile(path)
        if not 0 < length <= min(size - 8, LONGEST_HEADER):
            raise CorruptFile(path, f"not a whole safetensors file (its header of {length} bytes is not there)", mend)
        header = parse_json(file.read(length), path, mend)
    wrong = CorruptFile(path, "not a whole safetensors file (its header does not describe it)", mend)
    if not isinstance(header, dict):
        raise wrong
    out: dict[str, TensorEntry] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        made = _entry(entry, 8 + length)
        if made is None:
            raise wrong
        out[name] = made
    spans = sorted((entry.first, entry.end) for entry in out.values())
    ends = [8 + length, *(end for _, end in spans)]
    if any(first != end for (first, _), end in zip(spans, ends, strict=False)) or ends[-1] != size:
        check = f"not a whole safetensors file (its tensors end at byte {ends[-1]}, the file at {size})"
        raise CorruptFile(path, check, mend)
    return out


def _entry(entry: Any, start: int) -> TensorEntry | None:
    """What a header says of one tensor; None where it says no such thing, or of a type that torch has no word for."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return None
    kind, shape, at = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = [*shape, *at] if isinstance(shape, list) and isinstance(at, list) else [None]
    if any(type(n) is not int or n < 0 for n in numbers) or len(at) != 2 or not isinstance(kind, str):
        return None
    if kind not in TENSOR_TYPES:  # newer kinds of numbers, which the library may know
        return TensorEntry(torch.uint8, tuple(shape), start + at[0], start + at[1])
    dtype = TENSOR_TYPES[kind]
    if at[1] - at[0] != math.prod(shape) * dtype.itemsize:
        return None
    return TensorEntry(dtype, tuple(shape), start + at[0], start + at[1])


def _seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    return text_sha256(content_sha256(tensors) + json.dumps(dict(metadata), sort_keys=True))
