"""The state of a training run on disk: what each learner remembers, and where the run stands."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from concept_probe.learn.train.learner import Learner
from concept_probe.storage import read_tensors, remove_unfinished, write_sealed

SNAPSHOT = "training.safetensors"
_MEND = "delete it to train from the start"


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
    that the first batch differs.
    """
    path = folder / SNAPSHOT
    if learner.team.leads:
        remove_unfinished(folder, path.name)
    if not path.exists():
        return 0
    tensors, metadata = read_tensors(path, _MEND)
    theirs, ours = json.loads(metadata["settings"]), json.loads(json.dumps(asdict(learner.settings)))
    differ = [f"{n} {theirs.get(n)!r} there, {ours[n]!r} here" for n in ours if theirs.get(n) != ours[n]]
    if differ:
        raise ValueError(f"{path} is of another run: {'; '.join(differ)}; use another folder, or {_MEND}")
    if metadata["first"] != first:
        raise ValueError(f"{path} was trained on rows with another first batch; use another folder, or {_MEND}")
    learner.restore(tensors, "bfloat16" if metadata["precision"] == "bfloat16" else "full")
    return int(metadata["step"])
