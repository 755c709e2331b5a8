"""What sae-lens did to rows before it encoded them: taken into the weights where that is exact, else done to each row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from concept_probe.learn.interop.parts import Checkpoint
from concept_probe.learn.row_norm import RowNorm
from concept_probe.storage import read_json, read_tensors

SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
"""Files that a training run of sae-lens leaves beside its checkpoints."""
_MEND = "get the file again"
KNOWN = ("none", "expected_average_only_in", "covariance_whitening", "layer_norm", "constant_norm_rescale")


@dataclass(frozen=True)
class Whitening:
    """Rows were encoded as (x - mean) matrix, and reconstructions mapped back by `inverse` and the mean. float64."""

    mean: Tensor
    """(d,)"""
    matrix: Tensor
    """(d, d)"""
    inverse: Tensor
    """(d, d)"""


def normalisation(file: Checkpoint) -> tuple[RowNorm, float, Whitening | None]:
    """What rows went through in training and is not in the weights yet: per row, a factor, or a whitening.

    ValueError for a kind that is not known, and where the factor or the matrices are not beside the checkpoint.
    """
    config = file.config
    config.choice("reshape_activations", ("none", "hook_z"), "none")  # heads side by side are what sites give already
    kind = config.choice("normalize_activations", KNOWN, "none")
    if kind == "expected_average_only_in":
        return "none", _factor(file), None
    if kind == "covariance_whitening":
        return "none", 1.0, _whitening(file)
    return kind, 1.0, None  # pyright: ignore[reportReturnType] (one of RowNorm's, which KNOWN ends in)


def _factor(file: Checkpoint) -> float:
    path = _beside(file, SCALER, "the factor that rows were multiplied by")
    factor: Any = read_json(path, _MEND).get("scaling_factor")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < float("inf"):
        raise ValueError(f"{file.where}: {SCALER} gives the factor {factor!r}, which must be positive")
    return float(factor)


def _whitening(file: Checkpoint) -> Whitening:
    tensors, _ = read_tensors(_beside(file, WHITENING, "the matrices that rows went through"), _MEND)
    d = file.config.whole("d_in")
    beside = Checkpoint(file.config, tensors, f"{file.where}, {WHITENING}")
    shapes = {"mean": (d,), "matrix": (d, d), "inverse_matrix": (d, d)}
    mean, matrix, inverse = beside.take(shapes, f"d_in {d}")
    return Whitening(mean.double(), matrix.double(), inverse.double())


def _beside(file: Checkpoint, name: str, what: str) -> Path:
    path = None if file.folder is None else file.folder / name
    if path is None or not path.is_file():
        kind = file.config.peek("normalize_activations")
        raise ValueError(
            f"{file.where}: normalize_activations is {kind!r}, and {what} is not there as {name}; fold it into the "
            "weights with sae-lens first, or put the file of the training run beside the checkpoint"
        )
    return path
