"""CLIP pairs that lie on this machine: beside a model, inside its folder, or in the hub's cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path


def clip_pairs(model: str | Path) -> tuple[Path, ...]:
    """Folders of CLIP pairs with a tokenizer, nearest first: inside the folder of `model`, beside it, in the hub's cache.

    Nothing is downloaded, and no weight is read.
    """
    here = Path(model)
    places = [*_folders(here), *(_folders(here.absolute().parent) if here.is_dir() else ()), *_cached()]
    return tuple(dict.fromkeys(p for p in places if _is_pair(p)))


def _folders(place: Path) -> Iterator[Path]:
    try:
        yield from sorted(p for p in place.iterdir() if p.is_dir())
    except OSError:  # no such folder, or one that may not be read: nothing lies there for us
        return


def _cached() -> Iterator[Path]:
    from huggingface_hub.constants import HF_HUB_CACHE

    yield from sorted(Path(HF_HUB_CACHE).glob("models--*/snapshots/*"))


def _is_pair(folder: Path) -> bool:
    """Whether a folder says that it is a whole CLIP pair, with safetensors and a tokenizer."""
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    words = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    return isinstance(said, dict) and said.get("model_type") == "clip" and words and any(folder.glob("*.safetensors"))
