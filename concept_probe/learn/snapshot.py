"""The state of a training run on disk: weights, Adam's moments, idle times, and where it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from concept_probe.learn.checkpoint import read_tensors, write_tensors
from concept_probe.learn.settings import Settings

MEND = "delete it to train from the start"


def write_snapshot(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Adam,
    idle: Tensor,
    settings: Settings,
    first: str,
    step: int,
) -> None:
    """`step` batches have been consumed; `first` is the digest of the first, by which a rerun knows the data again."""
    tensors: dict[str, Tensor] = {"idle": idle}
    for name, parameter in parameters.items():
        state = optimiser.state[parameter]
        tensors |= {
            name: parameter,
            f"{name}.step": state["step"],
            f"{name}.first": state["exp_avg"],
            f"{name}.second": state["exp_avg_sq"],
        }
    write_tensors(path, tensors, {"settings": json.dumps(asdict(settings)), "first": first, "step": str(step)})


def read_snapshot(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Adam,
    idle: Tensor,
    settings: Settings,
    first: str,
) -> int:
    """Put a snapshot's state in place and return how many batches it has consumed.

    ValueError where the snapshot is of another run: it names each setting with both values, or says
    that the first batch differs.
    """
    tensors, metadata = read_tensors(path, MEND)
    theirs, ours = json.loads(metadata["settings"]), asdict(settings)
    differ = [f"{n} {theirs.get(n)!r} there, {ours[n]!r} here" for n in ours if theirs.get(n) != ours[n]]
    if differ:
        raise ValueError(f"{path} is of another run: {'; '.join(differ)}; use another folder, or {MEND}")
    if metadata["first"] != first:
        raise ValueError(f"{path} was trained on rows with another first batch; use another folder, or {MEND}")
    with torch.no_grad():
        idle.copy_(tensors["idle"])
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
            optimiser.state[parameter] = {
                "step": tensors[f"{name}.step"],
                "exp_avg": tensors[f"{name}.first"].to(parameter.device),
                "exp_avg_sq": tensors[f"{name}.second"].to(parameter.device),
            }
    return int(metadata["step"])
