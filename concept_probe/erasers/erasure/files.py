"""Edits on disk: safetensors beside a sealed JSON file, never a pickle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from concept_probe.erasers.erasure.deltas import Delta, rebuild
from concept_probe.erasers.erasure.parameters import split_address
from concept_probe.storage import (
    CorruptFile,
    MissingFile,
    WrongFile,
    check_fields,
    check_file,
    check_seal,
    file_sha256,
    only_writer,
    read_json,
    read_tensors,
    write_sealed_json,
    write_tensors,
)
from concept_probe.storage.schema import HASH, Fields, Free, Parsed, Table, Text

EDIT_FORMAT = "concept_probe.edit/2"
EDIT_WITHOUT_SEAL = "concept_probe.edit/1"
"""The format before: it is read where all that it says is as it has to be."""
_MEND = "the edit has to be made again"
_NOTE = Fields({
    "format": Text(),
    "name": Text(),
    "concept": Text(),
    "base_hash": Text(),
    "made_by": Table(Free()),
    "parameters": Table(Fields({"kind": Text()}, open=True), keys=Parsed(split_address, "the address of a parameter")),
    "sha256": HASH,
})  # fmt: skip


def write_deltas(folder: Path, deltas: Mapping[str, Delta], note: Mapping[str, Any]) -> None:
    """Write `edit.safetensors`, then `edit.json`, which holds its sha256 and `note`, sealed."""
    tensors = {f"{where}#{name}": x for where, delta in deltas.items() for name, x in delta.tensors().items()}
    with only_writer(folder, "an edit"):
        write_tensors(folder / "edit.safetensors", tensors)
        whole = {
            **note,
            "format": EDIT_FORMAT,
            "parameters": {where: delta.describe() for where, delta in deltas.items()},
            "sha256": file_sha256(folder / "edit.safetensors"),
        }
        write_sealed_json(folder / "edit.json", whole, indent=2, sort_keys=True)


def read_deltas(folder: Path) -> tuple[dict[str, Delta], dict[str, Any]]:
    """The deltas that `write_deltas` wrote, and its note among what else `edit.json` holds.

    Raises MissingFile for a missing file, WrongFile for another format, CorruptFile for what was cut or altered.
    """
    note, store = folder / "edit.json", folder / "edit.safetensors"
    for path in (note, store):
        if not path.is_file():
            raise MissingFile(f"no edit in {folder}: {path.name} is missing {_instead(folder)}")
    data = read_json(note, _MEND)
    if data.get("format") not in (EDIT_FORMAT, EDIT_WITHOUT_SEAL):
        check = f"it has format {data.get('format')!r}, this version reads {EDIT_FORMAT!r}"
        raise WrongFile(note, check, "update concept-probe, or make the edit again")
    data = check_seal(note, data, _MEND, needed=data["format"] == EDIT_FORMAT)
    check_fields(note, data, _NOTE, _MEND)
    check_file(store, data["sha256"], note.name, _MEND)
    own: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, x in read_tensors(store, _MEND)[0].items():
        where, _, name = key.rpartition("#")
        own[where][name] = x
    odd = sorted(set(own) - set(data["parameters"]))
    if odd:
        raise CorruptFile(note, f"it names no parameter {odd[0]!r}, of which {store.name} holds tensors", _MEND)
    deltas = {where: _rebuilt(note, where, kind, own[where]) for where, kind in data["parameters"].items()}
    return deltas, data


def _instead(folder: Path) -> str:
    """What is there in the place of an edit, with the mend."""
    if folder.is_file():
        return "(it is a file; give the folder that Edit.save wrote)"
    if any((folder / name).is_file() for name in ("model_index.json", "config.json")):
        return "(it holds a model; load it, and audit it with the model as it was for its `original`)"
    return "(Edit.save writes both files)"


def _rebuilt(note: Path, where: str, kind: dict[str, Any], tensors: dict[str, Tensor]) -> Delta:
    """The delta of a description, which has to describe itself so again."""
    try:
        delta = rebuild(kind, tensors)
        same = _plain(delta.describe()) == _plain(kind) and set(delta.tensors()) == set(tensors)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFile(note, f"parameter {where!r} is no such delta ({error})", _MEND) from None
    if not same:
        raise CorruptFile(
            note, f"parameter {where!r} is described as {kind}, its tensors are {delta.describe()}", _MEND
        )
    return delta


def _plain(described: Mapping[str, Any]) -> dict[str, Any]:
    """A description without its norms, whose last bits another machine may round in another way."""
    parts = [_plain(part) for part in described.get("parts", ())]
    return {**{n: v for n, v in described.items() if n != "norm"}, **({"parts": parts} if parts else {})}
