"""The state of a training run on disk: what each learner remembers, and where the run stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from concept_probe.learn.train.learner import Learner
from concept_probe.storage import CorruptFile, check_fields, parse_json, read_tensors, remove_unfinished, write_sealed
from concept_probe.storage.schema import Fields, Free, Parsed, Table, Text

SNAPSHOT = "training.safetensors"
_MEND = "delete it to train from the start"
_ABOUT = Fields({"settings": Text(), "precision": Text(), "first": Text(), "step": Parsed(int, "a whole number")})


def write_snapshot(folder: Path, learner: Learner, first: str, step: int) -> None:
    """`step` batches have been consumed; `first` is the digest of the first, by which a rerun knows the data again.

    Every process must call it; the first one writes.
    """
    tensors = learner.state()
    if learner.team.leads:
        about = {"settings": json.dumps(asdict(learner.settings)), "precision": learner.precision}
        write_sealed(folder / SNAPSHOT, tensors, {**about, "first": first, "step": str(step)})


def read_snapshot(folder: Path, learner: Learner, first: str) -> int:
    """Put the state of the snapshot in `folder` in place and return how many batches it has consumed; 0 without one.

    ValueError where the snapshot is of another run: it names each setting with both values, or says
    that the first batch differs. CorruptFile where it was cut or altered, its step among the rest.
    """
    path = folder / SNAPSHOT
    if learner.team.leads:
        remove_unfinished(folder, path.name)
    if not path.exists():
        return 0
    tensors, metadata = read_tensors(path, _MEND, sealed=True)
    check_fields(path, metadata, _ABOUT, _MEND, "its metadata")
    theirs, ours = parse_json(metadata["settings"], path, _MEND), json.loads(json.dumps(asdict(learner.settings)))
    check_fields(path, theirs, Table(Free()), _MEND, "its settings")
    differ = [f"{n} {theirs.get(n)!r} there, {ours[n]!r} here" for n in ours if theirs.get(n) != ours[n]]
    if differ:
        raise ValueError(f"{path} is of another run: {'; '.join(differ)}; use another folder, or {_MEND}")
    if metadata["first"] != first:
        raise ValueError(f"{path} was trained on rows with another first batch; use another folder, or {_MEND}")
    _refuse_other_shapes(path, tensors, learner)
    learner.restore(tensors, "bfloat16" if metadata["precision"] == "bfloat16" else "full")
    return int(metadata["step"])


def _refuse_other_shapes(path: Path, tensors: Mapping[str, Tensor], learner: Learner) -> None:
    """CorruptFile where the tensors are not those of such a learner's state."""
    wanted = {"idle", "threshold"}
    for name, parameter in learner.weights.parameters().items():
        wanted |= {name, f"{name}.first", f"{name}.second", f"{name}.step"}
        if name in tensors and tensors[name].shape[1:] != parameter.shape[1:]:
            check = f"{name} is of shape {tuple(tensors[name].shape)}, the run's is {tuple(parameter.shape)}"
            raise CorruptFile(path, check, _MEND)
    if set(tensors) != wanted:
        odd = ", ".join(sorted(set(tensors) ^ wanted)[:3])
        raise CorruptFile(path, f"it holds other tensors than a state: {odd}", _MEND)
