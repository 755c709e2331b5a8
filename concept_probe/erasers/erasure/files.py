"""Edits on disk: safetensors beside a JSON file, never a pickle; and adapters that peft loads."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from concept_probe.erasers.erasure.deltas import rebuild, transposed
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import split_address

FORMAT = "concept_probe.edit/1"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> str:
    """Write beside and rename, so that a killed run leaves the old file or the new one. Returns the sha256."""
    beside = path.with_name(path.name + ".part")
    save_file({name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()}, beside)
    digest = _sha256(beside)
    beside.replace(path)
    return digest


def _write_json(data: dict[str, Any], path: Path) -> None:
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(data, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    beside.replace(path)


def save_edit(edit: Edit, folder: Path) -> Path:
    """Write `edit.safetensors`, then `edit.json` that holds its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{where}#{name}": x for where, delta in edit.deltas.items() for name, x in delta.tensors().items()}
    digest = _write_tensors(tensors, folder / "edit.safetensors")
    _write_json(
        {
            "format": FORMAT,
            "name": edit.name,
            "concept": edit.concept,
            "base_hash": edit.base_hash,
            "made_by": dict(edit.made_by),
            "parameters": {where: delta.describe() for where, delta in edit.deltas.items()},
            "sha256": digest,
        },
        folder / "edit.json",
    )
    return folder


def load_edit(folder: Path) -> Edit:
    """The edit that `save_edit` wrote.

    Raises FileNotFoundError for a missing file, ValueError for another format or altered tensors.
    """
    note, store = folder / "edit.json", folder / "edit.safetensors"
    for path in (note, store):
        if not path.is_file():
            raise FileNotFoundError(f"no edit in {folder}: {path.name} is missing (Edit.save writes both files)")
    try:
        data = json.loads(note.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{note} is not JSON: {error}; the edit has to be made again") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"{note} has format {found!r}, this version reads {FORMAT!r}")
    found = _sha256(store)
    if found != data["sha256"]:
        raise ValueError(f"{store} is truncated or altered: sha256 is {found}, {note.name} says {data['sha256']}")
    own: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, x in load_file(store).items():
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
        place.mkdir(parents=True, exist_ok=True)
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
        _write_tensors(tensors, place / "adapter_model.safetensors")
        _write_json(config, place / "adapter_config.json")
        out.append(place)
    return tuple(out)
