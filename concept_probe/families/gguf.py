"""GGUF files: converted once to safetensors in the user's cache, and read from there afterwards."""

from __future__ import annotations

import copy
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from concept_probe.storage import file_sha256, write_tensors

FULL_SIZE = 8
"""Bytes on disk of a float32 conversion, at most, per byte of the GGUF file (4-bit weights)."""


def cache_folder() -> Path:
    """Where conversions are kept: `concept_probe` in $XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "concept_probe"


def converted(file: Path) -> Path:
    """The folder of safetensors that `file` was converted to, made now if there is none yet.

    The folder's name holds the file's hash and the library's version, and it is made beside and renamed: it is
    whole or absent. Values are those of the file, dequantised to float32.

    Raises FileNotFoundError, ModuleNotFoundError for the reader that is missing, ValueError for a file that is no
    model, OSError where there is no room.
    """
    if not file.is_file():
        raise FileNotFoundError(f"GGUF file {str(file)!r} not found")
    digest = file_sha256(file)[:16]
    place = cache_folder() / f"{file.stem}-{digest}-transformers-{transformers.__version__}"
    if place.is_dir():
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
    beside = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
    try:
        _convert(file, beside)
        beside.chmod(0o755)
        try:
            beside.rename(place)
        except OSError:
            if not place.is_dir():  # else another process was quicker, with the same content
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def _convert(file: Path, folder: Path) -> None:
    try:
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.float32, output_loading_info=True
        )
        model, info = loaded
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
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
