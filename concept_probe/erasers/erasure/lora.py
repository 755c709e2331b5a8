"""Edits as adapters that peft loads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from concept_probe.erasers.erasure.deltas import Delta, transposed
from concept_probe.erasers.erasure.parameters import split_address
from concept_probe.storage import write_json, write_tensors


def write_lora(deltas: Mapping[str, Delta], folder: Path) -> tuple[Path, ...]:
    """One peft adapter per component, with the rank of each matrix in `rank_pattern` and scale 1. Returns the folders.

    Raises ValueError for the change of a bias.
    """
    factors: dict[str, dict[str, tuple[Tensor, Tensor]]] = defaultdict(dict)
    for where, delta in deltas.items():
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
                transposed(delta) for where, delta in deltas.items() if split_address(where)[0] == component
            ),
            "task_type": None,
        }
        write_tensors(place / "adapter_model.safetensors", tensors)
        write_json(place / "adapter_config.json", config, indent=2, sort_keys=True)
        out.append(place)
    return tuple(out)
