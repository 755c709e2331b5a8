"""GGUF files: converted once to safetensors in the user's cache, and read from there afterwards."""

from __future__ import annotations

import contextlib
import copy
import glob
import importlib.util
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import modeling_gguf_pytorch_utils

from concept_probe.storage import bytes_sha256, file_sha256, write_tensors, write_text

FULL_SIZE = 8
"""Bytes on disk of a float32 conversion, at most, per byte of the GGUF file (4-bit weights)."""

PIECES, PIECE = 64, 65536
"""How many pieces of a file are hashed to know it again, and their bytes."""
MET = "converted_from.txt"
"""In the folder of a conversion: marks of the files that it is of."""


def cache_folder() -> Path:
    """Where conversions are kept: `concept_probe` in $XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "concept_probe"


def converted(file: Path) -> Path:
    """The folder of safetensors that `file` was converted to, made now if there is none yet.

    The folder's name holds the file's hash and the library's version, and it is made beside and renamed: it is
    whole or absent. A file of the size, the time and a sampled hash of one that was hashed before is not hashed again.
    Values are those of the file, dequantised to float32.

    Raises FileNotFoundError, ModuleNotFoundError for the reader that is missing, ValueError for a file that is no
    model, OSError where there is no room.
    """
    if not file.is_file():
        raise FileNotFoundError(f"GGUF file {str(file)!r} not found")
    marks = _marks(file)
    for known in sorted(cache_folder().glob(f"{glob.escape(file.stem)}-*-transformers-{transformers.__version__}")):
        if marks in _met(known):
            return known
    digest = file_sha256(file)[:16]
    place = cache_folder() / f"{file.stem}-{digest}-transformers-{transformers.__version__}"
    if place.is_dir():
        _remember(place, marks)
        return place
    if importlib.util.find_spec("gguf") is None:
        raise ModuleNotFoundError(f"{file.name} is a GGUF file, which the package gguf reads: pip install gguf")
    place.parent.mkdir(parents=True, exist_ok=True)
    need, free = file.stat().st_size * FULL_SIZE, shutil.disk_usage(place.parent).free
    if need > free:
        raise OSError(
            f"converting {file.name} takes up to {need / 1e9:.1f} GB in {place.parent}, which has {free / 1e9:.1f} GB "
            "free; make room, or set XDG_CACHE_HOME to a folder on a larger disk"
        )
    beside = place.with_name(f"{place.name}.{uuid.uuid4().hex[:12]}")
    beside.mkdir()
    try:
        _convert(file, beside)
        _remember(beside, marks)
        try:
            beside.rename(place)
        except OSError:
            if not place.is_dir():  # else another process was quicker, with the same content
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def _marks(file: Path) -> str:
    """What tells a file from others without reading it whole: its size, its time, and a hash of pieces of it."""
    about = file.stat()
    pieces = []
    with file.open("rb") as stream:
        for k in range(PIECES):
            stream.seek(max(about.st_size - PIECE, 0) * k // (PIECES - 1))
            pieces.append(stream.read(PIECE))
    return f"{about.st_size} {about.st_mtime_ns} {bytes_sha256(b''.join(pieces))}"


def _met(place: Path) -> list[str]:
    """Marks of the files whose whole hash was seen to be that of a conversion."""
    try:
        return (place / MET).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _remember(place: Path, marks: str) -> None:
    """Note the marks of a file that was hashed; a cache that can't be written stays as it is."""
    with contextlib.suppress(OSError):
        write_text(place / MET, "\n".join([*_met(place), marks]) + "\n")


@contextmanager
def _without_bar() -> Iterator[None]:
    """Keep the bar of the GGUF reader off the terminal: it does not ask whether bars are wanted."""
    own = modeling_gguf_pytorch_utils.tqdm  # pyright: ignore[reportPrivateImportUsage]
    modeling_gguf_pytorch_utils.tqdm = partial(own, disable=True)  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = own  # pyright: ignore[reportPrivateImportUsage]


def _convert(file: Path, folder: Path) -> None:
    try:
        with _without_bar():
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                str(file.parent),
                gguf_file=file.name,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
            )
        model, info = loaded
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
            str(file.parent), gguf_file=file.name, trust_remote_code=False
        )
    except Exception as problem:  # a damaged file fails wherever its reader stumbles
        raise ValueError(f"GGUF file {str(file)!r} could not be read as a language model: {problem}") from problem
    if info["missing_keys"]:
        lacking = ", ".join(sorted(info["missing_keys"])[:3])
        raise ValueError(f"GGUF file {str(file)!r} lacks tensors of its own model ({lacking}): get it again, whole")
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):  # the weights are plain numbers from here on
        del config.quantization_config
    weights, seen = {}, set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:  # a tied matrix is written once, and tied again when it is read
            weights[name] = tensor.contiguous()
        seen.add(tensor.data_ptr())
    write_tensors(folder / "model.safetensors", weights, {"format": "pt"})
    config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
