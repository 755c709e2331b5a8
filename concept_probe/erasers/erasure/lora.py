"""Edits as adapters: a folder per component that peft loads, and one file for pipelines and web interfaces."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_probe.erasers.erasure.deltas import Delta, transposed
from concept_probe.erasers.erasure.lora_factors import Factors, lora_factors
from concept_probe.erasers.erasure.parameters import split_address
from concept_probe.storage import write_json, write_tensors

if TYPE_CHECKING:
    from concept_probe.families import Subject

PIPELINE_FILE = "pytorch_lora_weights.safetensors"
"""The name under which diffusers looks for the adapter of a pipeline."""
OF_A_PIPELINE = ("unet", "transformer", "text_encoder", "text_encoder_2")
"""Components whose adapters stand in that file."""


def write_lora(
    deltas: Mapping[str, Delta], folder: Path, subject: Subject | None = None, *, leave_out: bool = False
) -> tuple[Path, ...]:
    """One peft adapter per component, with the rank of each matrix in `rank_pattern` and scale 1. Returns the folders.

    Components of a pipeline stand once more in `PIPELINE_FILE`, beside the folders. Raises as `lora_factors` does.
    """
    factors = lora_factors(deltas, subject, leave_out=leave_out)
    folders = write_peft_adapters(factors, deltas, folder)
    held = {component: matrices for component, matrices in factors.items() if component in OF_A_PIPELINE}
    left = sorted(set(factors) - set(held))
    if held and left:
        warnings.warn(
            f"a pipeline's adapter has no place for {', '.join(left)}, so {PIPELINE_FILE} is only a part of the edit; load "
            "that component's folder with peft as well",
            stacklevel=3,
        )
    if held:
        write_pipeline_adapter(held, folder)
    return folders


def write_peft_adapters(
    factors: Mapping[str, Mapping[str, Factors]], deltas: Mapping[str, Delta], folder: Path
) -> tuple[Path, ...]:
    """A folder for each component, named after it, that `PeftModel.from_pretrained` loads. Returns them."""
    out = []
    for component, matrices in factors.items():
        place = folder / component
        tensors = {}
        for path, (a, b) in matrices.items():
            tensors[f"base_model.model.{path}.lora_A.weight"] = a
            tensors[f"base_model.model.{path}.lora_B.weight"] = b
        config = {
            **_ranks(matrices),
            "peft_type": "LORA",
            "base_model_name_or_path": None,
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


def _ranks(matrices: Mapping[str, Factors]) -> dict[str, Any]:
    """The part of an adapter's configuration that follows from its matrices: their ranks, and a scale of 1."""
    ranks = {path: len(a) for path, (a, _) in matrices.items()}
    return {
        "target_modules": sorted(matrices),
        "r": max(ranks.values()),
        "lora_alpha": max(ranks.values()),
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
        "lora_dropout": 0.0,
        "bias": "none",
    }


def write_pipeline_adapter(held: Mapping[str, Mapping[str, Factors]], folder: Path) -> Path:
    """The file that `load_lora_weights` of a pipeline takes, the configuration of each component among its metadata."""
    tensors, told = {}, {}
    for component, given in held.items():
        matrices = with_last_matrix(component, given, ".self_attn.")
        for path, (a, b) in matrices.items():
            name = f"{component}.{_usual(component, path)}"
            tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = a, b
        told |= {f"{component}.{key}": value for key, value in _ranks(matrices).items()}
    place = folder / PIPELINE_FILE
    write_tensors(place, tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(told)})
    return place


def with_last_matrix(component: str, matrices: Mapping[str, Factors], by: str) -> dict[str, Factors]:
    """The products of one component; of a CLIP text encoder none of whose paths has `by` in it, with one of zeros for the last
    matrix of attention. By that diffusers knows what it reads; without it the file is refused, or parts of it left out."""
    first = next((path for path in matrices if re.search(r"encoder\.layers\.\d+\.(self_attn|mlp)\.", path)), None)
    if not component.startswith("text_encoder") or first is None or any(by in path for path in matrices):
        return dict(matrices)
    a, b = matrices[first]
    width = len(b) if first.endswith(".fc2") else a.shape[1]
    last = re.sub(r"\.(self_attn|mlp)\..*", ".self_attn.out_proj", first)
    return {**matrices, last: (a.new_zeros(1, width), b.new_zeros(width, 1))}


def _usual(component: str, path: str) -> str:
    """A module's path as adapters of pipelines have it: CLIP's layers below `text_model`, wherever a release keeps them."""
    return f"text_model.{path}" if component.startswith("text_encoder") and path.startswith("encoder.") else path
