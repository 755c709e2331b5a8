"""Tensors in a pickle that holds nothing else: torch's reader of plain tensors runs no code."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from concept_probe.storage.errors import MissingFile, WrongFile

WRAPPERS = ("state_dict", "model", "module", "params", "weights")
"""Keys under which trainers put all of a model's tensors, beside other things."""


def read_plain_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that `torch.save` wrote, tables within tables joined by a dot.

    Only what can't run code is unpickled (`weights_only`). Numbers and texts beside the tensors are left out. MissingFile;
    WrongFile for a pickle of anything else, or one that can't be read.
    """
    if not path.is_file():
        raise MissingFile(f"{path} not found; get the file again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            held = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever the reader stumbles over, the file is no plain one
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it asks for {named[1]}" if named else type(error).__name__
        raise WrongFile(
            path,
            f"a pickle that holds more than tensors, or is not whole ({what})",
            "loading it could run code, so it is refused; convert it to safetensors where you trust it",
        ) from None
    return dict(_tensors(path, held, ""))


def _tensors(path: Path, held: Any, before: str) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(held, Mapping):
        raise WrongFile(path, f"a pickle of a {type(held).__name__}, not of tensors by name", "give a state dict")
    wrapper = next((w for w in WRAPPERS if isinstance(held.get(w), Mapping)), None) if not before else None
    for name, value in (held if wrapper is None else held[wrapper]).items():
        if isinstance(value, Tensor):
            yield f"{before}{name}", value.detach()
        elif isinstance(value, Mapping):
            yield from _tensors(path, value, f"{before}{name}.")
        elif not isinstance(value, bool | int | float | str | None):
            raise WrongFile(path, f"{before}{name} is a {type(value).__name__}, not a tensor", "give a state dict")
