"""The files of a model's folder: none of them leads out of it, and the damaged one is found where a library fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from concept_probe.storage import CorruptFile, WrongFile, inside, parse_json, read_text, tensor_entries

_MEND = "get the file again"
_INDICES = "*.safetensors.index*.json"
"""Tables of which file holds which weight, where the weights are in several."""


def refuse_outside(folder: Path) -> None:
    """WrongFile where an index of weights in `folder` names a file that is not in it; CorruptFile for no such index.

    Names are looked at and links are not: the hub's cache is made of links.
    """
    for index in sorted(folder.glob(_INDICES)):
        said = _json(index)
        files = said.get("weight_map") if isinstance(said, dict) else None
        if not isinstance(files, dict):
            raise CorruptFile(index, "no table of files by weight (weight_map)", _MEND)
        for name in files.values():
            try:
                inside(folder, name, "the file in weight_map", links=True)
            except WrongFile as wrong:
                raise WrongFile(index, wrong.check, "get the model again, from whom you trust") from None


def damaged_file(folder: Path) -> CorruptFile | WrongFile | None:
    """What is wrong with the first file of a model in `folder`, or in a folder in it, that is not whole."""
    for path in _files(folder):
        try:
            if path.suffix == ".json":
                _json(path)
            else:
                tensor_entries(path, _MEND)
        except (CorruptFile, WrongFile) as wrong:
            return wrong
        except OSError:
            continue
    return None


def _files(folder: Path) -> Iterator[Path]:
    for kind in ("*.json", "*.safetensors"):
        for place in ("", "*/"):
            yield from sorted(path for path in folder.glob(place + kind) if path.is_file())


def _json(path: Path) -> Any:
    text = read_text(path, _MEND)
    with suppress(RecursionError, ValueError):
        text = json.dumps(json.loads(text))  # a key that stands twice is no damage
    return parse_json(text, path, _MEND)
