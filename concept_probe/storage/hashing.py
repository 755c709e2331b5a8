"""Hashes: of bytes, texts, files and tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from concept_probe.storage.errors import CorruptFile, MissingFile

PART = 2**26
"""Bytes of a tensor that are copied at a time to be hashed."""


def check_file(path: Path, sha256: str, by: str, mend: str) -> None:
    """CorruptFile, ending in `mend`, where the file at `path` hasn't the hash that `by`, another file, says."""
    if not path.is_file():
        raise MissingFile(f"{path} is missing, which {by} names; {mend}")
    found = file_sha256(path)
    if found != sha256:
        raise CorruptFile(path, f"truncated or altered: sha256 is {found}, {by} says {sha256}", mend)


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
        for part in tensor_parts(tensor):
            sha.update(part)
    return sha.hexdigest()


def content_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over names, types, shapes and bytes, in the order of the names: what a sealed file holds."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        for part in tensor_parts(tensor):
            sha.update(part)
    return sha.hexdigest()


def tensor_parts(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of a tensor where Python can read them: in place, or else copied in pieces of at most `PART` bytes."""
    plain = tensor.detach()
    size = plain.numel() * plain.element_size()
    in_place = plain.device.type == "cpu" and plain.is_contiguous()
    rows = len(plain) if plain.ndim and not in_place and size > PART else 1
    for part in plain.split(max(1, rows * PART // size)) if rows > 1 else (plain,):
        flat = part.cpu().contiguous()
        # A lone number passes for contiguous with any stride, and `view` takes only a stride of 1.
        yield flat.as_strided((flat.numel(),), (1,)).view(torch.uint8).numpy().data
