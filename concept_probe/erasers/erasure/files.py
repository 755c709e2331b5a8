"""Edits on disk: safetensors beside a JSON file, never a pickle; and adapters that peft loads."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from torch import Tensor

from concept_probe.erasers.erasure.deltas import rebuild, transposed
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import split_address
from concept_probe.storage import check_file, file_sha256, read_json, read_tensors, write_json, write_tensors

EDIT_FORMAT = "concept_probe.edit/1"
_MEND = "the edit has to be made again"


def save_edit(edit: Edit, folder: Path) -> Path:
    """Write `edit.safetensors`, then `edit.json` that holds its sha256."""
    tensors = {f"{where}#{name}": x for where, delta in edit.deltas.items() for name, x in delta.tensors().items()}
    write_tensors(folder / "edit.safetensors", tensors)
    note = {
        "format": EDIT_FORMAT,
        "name": edit.name,
        "concept": edit.concept,
        "base_hash": edit.base_hash,
        "made_by": dict(edit.made_by),
        "parameters": {where: delta.describe() for where, delta in edit.deltas.items()},
        "sha256": file_sha256(folder / "edit.safetensors"),
    }
    write_json(folder / "edit.json", note, indent=2, sort_keys=True)
    return folder


def load_edit(folder: Path) -> Edit:
    """The edit that `save_edit` wrote.

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
    return Edit(data["name"], data["concept"], deltas, data["base_hash"], data["made_by"])


def export_lora(edit: Edit, folder: Path) -> tuple[Path, ...]:
    """One peft adapter per component, with the rank of each matrix in `rank_pattern` and scale 1."""
    factors: dict[str, dict[str, tuple[Tensor, Tensor]]] = defaultdict(dict)
    for where, delta in edit.deltas.items():
        component, name = split_address(where)
        path, _, leaf = name.rpartition(".")
        if leaf != "weight":
            raise ValueError(f"the edit changes {where!r}: an adapter of low-rank matrices can't hold a bias; use save")
        if not delta.is_empty():
            factors[component][path] = delta.factors()
    out = []
    for component, matrices in factors.items():
        place = folder / component
        tensors = {}
        for path, (u, v) in matrices.items():
            tensors[f"base_model.model.{path}.lora_A.weight"] = v.mT
            tensors[f"base_model.model.{path}.lora_B.weight"] = u
        ranks = {path: u.shape[1] for path, (u, _) in matrices.items()}
        config = {
            "peft_type": "LORA",
            "base_model_name_or_path": None,
            "target_modules": sorted(matrices),
            "r": max(ranks.values()),
            "lora_alpha": max(ranks.values()),
            "rank_pattern": ranks,
            "alpha_pattern": ranks,
            "lora_dropout": 0.0,
            "bias": "none",
            "inference_mode": True,
            "fan_in_fan_out": any(
                transposed(delta) for where, delta in edit.deltas.items() if split_address(where)[0] == component
            ),
            "task_type": None,
        }
        write_tensors(place / "adapter_model.safetensors", tensors)
        write_json(place / "adapter_config.json", config, indent=2, sort_keys=True)
        out.append(place)
    return tuple(out)
