"""What numbers were made of, as JSON that names tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from concept_probe.types import FindingSources, NumberSource


def told_sources(sources: FindingSources, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The sources of a finding; their tensors are added to `tensors` under new names."""
    sides = {side: getattr(sources, side) for side in ("before", "after", "control")}
    return {side: None if source is None else _node(source, tensors) for side, source in sides.items()}


def _node(source: NumberSource, tensors: dict[str, Tensor]) -> dict[str, Any]:
    names = []
    for tensor in source.tensors:
        names.append(str(len(tensors)))
        tensors[names[-1]] = tensor.detach().cpu().contiguous()
    parts = [_node(part, tensors) for part in source.parts]
    return {
        "how": source.how, "tensors": names, "key": source.key, "arm": source.arm, "parts": parts, "number": source.number
    }  # fmt: skip


def read_sources(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> FindingSources:
    """What `told_sources` told. KeyError or TypeError for what it can't have."""
    sides = ("before", "after", "control")
    return FindingSources(*(None if told[side] is None else _source(told[side], tensors) for side in sides))


def _source(node: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> NumberSource:
    return NumberSource(
        node["how"], tuple(tensors[name] for name in node["tensors"]), node["key"], node["arm"],
        tuple(_source(part, tensors) for part in node["parts"]), float(node["number"]),
    )  # fmt: skip
