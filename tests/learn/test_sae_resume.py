"""A run that was killed and started again gives the weights of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from concept_probe.learn import CorruptFile, Sae, TrainingStep, load_sae
from tests.learn.long_run import run
from tests.learn.planted import SITE, Planted
from tests.learn.training import trained

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "site": SITE,
    "k": 3,
    "expansion": 4,
    "batch": 128,
    "samples": 128 * 30,
    "save_every": 10,
    "dead_after": 600,
}


def small(**changes: Any) -> dict[str, Any]:
    return {**SMALL, **changes}


def same(one: Sae, two: Sae) -> bool:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return one.scale == two.scale and all(torch.equal(a, b) for a, b in pairs)


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.learn.long_run", str(folder), *more]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)


def kill_at(process: subprocess.Popen[str], step: int) -> int:
    """Kill -9 once `step` was reported, and return the last step that was."""
    last = -1
    assert process.stdout is not None
    for line in process.stdout:
        last = int(line)
        if last == step:
            process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return last


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A captured store, so that the run reads what users read."""
    from concept_probe.activations import capture
    from concept_probe.testing.concepts import tiny_concept
    from concept_probe.testing.models.diffusion import tiny_sd

    subject, folder = tiny_sd(), tmp_path_factory.mktemp("store")
    capture(subject, list(tiny_concept().unrelated.fit) * 4, sites=subject.sites("text_stream")[:1], folder=folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param("iterator", marks=pytest.mark.exhaustive), "store"])
def test_killed_twice_and_started_again_ends_in_the_same_bits(tmp_path, kind, request):
    more = (str(request.getfixturevalue("store")),) if kind == "store" else ()
    threads = torch.get_num_threads()
    try:
        whole = run(None, *(more or (None,)))
    finally:
        torch.set_num_threads(threads)
    first = kill_at(start(tmp_path, *more), 55)
    second = kill_at(start(tmp_path, *more), 97)
    assert 55 <= first < 149 and 97 <= second < 149
    assert not (tmp_path / "cfg.json").exists()
    last = start(tmp_path, *more)
    steps = [int(line) for line in last.stdout or ()]
    assert last.wait() == 0
    assert steps == list(range(80, 150))
    assert same(load_sae(tmp_path), whole)


class Stop(Exception):
    pass


def stopping(at: int):
    def on_step(step: TrainingStep) -> None:
        if step.step == at:
            raise Stop

    return on_step


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 9, 10, 24, 29])
def test_an_exception_at_any_step_loses_nothing_but_time(tmp_path, at):
    whole = trained(Planted().batches(128), **SMALL)
    with pytest.raises(Stop):
        trained(Planted().batches(128), **SMALL, folder=tmp_path, on_step=stopping(at))
    (tmp_path / "training.safetensors.part").write_bytes(b"a snapshot cut in the middle of being written")
    log: list[TrainingStep] = []
    again = trained(Planted().batches(128), **SMALL, folder=tmp_path, on_step=log.append)
    assert same(again, whole)
    assert len(log) == 30 - (at + 1) // 10 * 10


def test_a_finished_run_is_not_trained_again(tmp_path):
    one = trained(Planted().batches(128), **SMALL, folder=tmp_path)
    log: list[TrainingStep] = []
    two = trained(Planted().batches(128), **SMALL, folder=tmp_path, on_step=log.append)
    assert same(one, two) and not log
    assert same(load_sae(tmp_path), one)


def test_a_folder_with_another_run_is_refused_naming_both_values(tmp_path):
    trained(Planted().batches(128), **SMALL, folder=tmp_path)
    with pytest.raises(ValueError, match="is of another run: k 3 there, 2 here; use another folder"):
        trained(Planted().batches(128), **small(k=2), folder=tmp_path)
    with pytest.raises(ValueError, match="seed 0 there, 1 here"):
        trained(Planted().batches(128), **SMALL, seed=1, folder=tmp_path)
    with pytest.raises(ValueError, match="rows with another first batch"):
        trained(Planted(seed=1).batches(128), **SMALL, folder=tmp_path)


@pytest.mark.parametrize("damage", ["cut", "altered"])
def test_a_damaged_snapshot_is_refused_naming_file_and_check(tmp_path, damage):
    trained(Planted().batches(128), **SMALL, folder=tmp_path)
    path = tmp_path / "training.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[-5] ^= 1
    path.write_bytes(content)
    check = "not a whole safetensors file" if damage == "cut" else "altered: the seal of its tensors and metadata is"
    with pytest.raises(CorruptFile, match=rf"training\.safetensors: {check}.*delete it to train from the start"):
        trained(Planted().batches(128), **SMALL, folder=tmp_path)
