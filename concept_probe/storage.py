"""Files that are whole or absent: written beside and renamed, checked when read, never pickled."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")


class CorruptFile(ValueError):
    """A file is not what was written; the message names it and the check that failed."""

    def __init__(self, path: Path, check: str, mend: str) -> None:
        super().__init__(f"{path}: {check}; {mend}")
        self.path = path


def write_text(path: Path, text: str) -> None:
    """Write beside `path`, then rename: a reader sees the old file or the new one, never half of one."""
    beside = _beside(path)
    beside.write_text(text, encoding="utf-8")
    _into_place(beside, path)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """As `write_text`, for safetensors. The metadata gains `sha256`, a digest of names, types, shapes and bytes."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    beside = _beside(path)
    save_file(whole, beside, metadata={**metadata, "sha256": digest(whole)})
    _into_place(beside, path)


def read_tensors(path: Path, mend: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. CorruptFile, ending in `mend`, where it was cut or altered."""
    refuse_pickle(path)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise CorruptFile(path, f"not a whole safetensors file ({error})", mend) from None
    written = metadata.pop("sha256", None)
    if written is not None and written != (found := digest(tensors)):
        raise CorruptFile(path, f"sha256 of its tensors is {found}, {written} was written", mend)
    return tensors, metadata


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_pickle(path: Path) -> None:
    """ValueError for a pickle: loading one runs whatever code it holds. The message has the lines that convert it."""
    if path.suffix in PICKLES:
        raise ValueError(
            f"{path} is a pickle, which can run code when loaded; convert it to safetensors first, with torch's reader "
            f"of plain tensors: t = torch.load({path.name!r}, weights_only=True); t = t.get('state_dict', t); "
            f"safetensors.torch.save_file({{n: x.contiguous() for n, x in t.items() if torch.is_tensor(x)}}, "
            f"{path.with_suffix('.safetensors').name!r})"
        )


def _beside(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + ".part")


def _into_place(beside: Path, path: Path) -> None:
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)
