"""What sae-lens did to rows before it encoded them: taken into the weights where that is exact, else refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from concept_probe.learn.interop.parts import Checkpoint, refuse
from concept_probe.storage import read_json, read_tensors

SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
"""Files that a training run of sae-lens leaves beside its checkpoints."""
_MEND = "get the file again"
PER_ROW = ("layer_norm", "constant_norm_rescale")
"""Normalisations that differ from row to row, so that no weights can stand for them."""
KNOWN = ("none", "expected_average_only_in", "covariance_whitening", *PER_ROW)


@dataclass(frozen=True)
class Whitening:
    """Rows were encoded as (x - mean) matrix, and reconstructions mapped back by `inverse` and the mean. float64."""

    mean: Tensor
    """(d,)"""
    matrix: Tensor
    """(d, d)"""
    inverse: Tensor
    """(d, d)"""


def _kind(file: Checkpoint) -> str:
    kind = str(file.config.get("normalize_activations", "none"))
    what = f"normalize_activations is {kind!r}"
    refuse(kind in PER_ROW, file.where, what, "which divides each row by its own size and can't be put into weights")
    refuse(kind not in KNOWN, file.where, what, f"which is not known; known: {', '.join(KNOWN)}")
    shape = file.config.get("reshape_activations", "none")
    # Heads side by side are what sites give already, so flattening them changes nothing.
    refuse(shape not in ("none", "hook_z"), file.where, f"reshape_activations is {shape!r}", "which is not known")
    return kind


def norm_scale_of(file: Checkpoint) -> float:
    """The factor that rows were multiplied by in training, where it is not in the weights yet; else 1.

    ValueError where the factor is not beside the checkpoint, or the normalisation can't be folded.
    """
    if _kind(file) != "expected_average_only_in":
        return 1.0
    path = _beside(file, SCALER, "the factor that rows were multiplied by")
    factor: Any = read_json(path, _MEND).get("scaling_factor")
    usable = isinstance(factor, int | float) and factor > 0
    refuse(not usable, file.where, f"{SCALER} gives the factor {factor!r}", "which must be positive")
    return float(factor)


def whitening_of(file: Checkpoint) -> Whitening | None:
    """The whitening that rows went through in training, where it is not in the weights yet; else None.

    ValueError where its matrices are not beside the checkpoint.
    """
    if _kind(file) != "covariance_whitening":
        return None
    tensors, _ = read_tensors(_beside(file, WHITENING, "the matrices that rows went through"), _MEND)
    d = file.whole("d_in")
    beside = Checkpoint(file.config, tensors, f"{file.where}, {WHITENING}")
    shapes = {"mean": (d,), "matrix": (d, d), "inverse_matrix": (d, d)}
    mean, matrix, inverse = beside.take(shapes, f"d_in {d}")
    return Whitening(mean.double(), matrix.double(), inverse.double())


def _beside(file: Checkpoint, name: str, what: str) -> Path:
    path = None if file.folder is None else file.folder / name
    if path is None or not path.is_file():
        kind = file.config.get("normalize_activations")
        raise ValueError(
            f"{file.where}: normalize_activations is {kind!r}, and {what} is not there as {name}; fold it into the "
            "weights with sae-lens first, or put the file of the training run beside the checkpoint"
        )
    return path
