"""Edits on disk: safetensors beside a JSON file, never a pickle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from concept_probe.erasers.erasure.deltas import Delta, rebuild
from concept_probe.storage import check_file, file_sha256, read_json, read_tensors, write_json, write_tensors

EDIT_FORMAT = "concept_probe.edit/1"
_MEND = "the edit has to be made again"


def write_deltas(folder: Path, deltas: Mapping[str, Delta], note: Mapping[str, Any]) -> None:
    """Write `edit.safetensors`, then `edit.json`, which holds its sha256 and `note`."""
    tensors = {f"{where}#{name}": x for where, delta in deltas.items() for name, x in delta.tensors().items()}
    write_tensors(folder / "edit.safetensors", tensors)
    whole = {
        **note,
        "format": EDIT_FORMAT,
        "parameters": {where: delta.describe() for where, delta in deltas.items()},
        "sha256": file_sha256(folder / "edit.safetensors"),
    }
    write_json(folder / "edit.json", whole, indent=2, sort_keys=True)


def read_deltas(folder: Path) -> tuple[dict[str, Delta], dict[str, Any]]:
    """The deltas that `write_deltas` wrote, and its note among what else `edit.json` holds.

    Raises FileNotFoundError for a missing file, ValueError for another format, CorruptFile for what was cut or altered.
    """
    note, store = folder / "edit.json", folder / "edit.safetensors"
    for path in (note, store):
        if not path.is_file():
            raise FileNotFoundError(f"no edit in {folder}: {path.name} is missing (Edit.save writes both files)")
    data = read_json(note, _MEND)
    if data.get("format") != EDIT_FORMAT:
        raise ValueError(f"{note} has format {data.get('format')!r}, this version reads {EDIT_FORMAT!r}")
    check_file(store, data["sha256"], note.name, _MEND)
    own: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, x in read_tensors(store, _MEND)[0].items():
        where, _, name = key.rpartition("#")
        own[where][name] = x
    deltas = {where: rebuild(kind, own[where]) for where, kind in data["parameters"].items()}
    return deltas, data
