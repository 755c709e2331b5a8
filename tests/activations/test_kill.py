"""Killed at the worst moments, a capture goes on and ends with the bytes of an undisturbed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from concept_probe.activations import Activations, CaptureOptions, capture
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Query, Sampling
from tests.activations.test_store import PROMPTS

ROOT = Path(__file__).parents[2]
QUERIES = [Query(p, i) for i, p in enumerate(PROMPTS[:12])]
OPTIONS = {
    "roles": ("cross_out", "text_out"),
    "sampling": Sampling(steps=2, batch=4),
    "options": CaptureOptions(shard_rows=60),
}
VICTIM = """
import os, signal, sys
from concept_probe import storage
from concept_probe.activations import capture, manifest
from concept_probe.storage import tensors
from tests.activations.test_kill import OPTIONS, QUERIES
from concept_probe.testing.models.diffusion import tiny_sd

moment, left = sys.argv[2], int(sys.argv[3])
write_all, write_text = tensors.write_all, manifest.write_text

def die_in_shard(descriptor, data):
    global left
    left -= 1
    if left == 0:
        write_all(descriptor, memoryview(data)[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    write_all(descriptor, data)

def die_before_manifest(path, text):
    global left
    left -= 1
    if left == 0:
        path.with_name(path.name + storage.UNFINISHED).write_text(text[:100])
        os.kill(os.getpid(), signal.SIGKILL)
    write_text(path, text)

if moment == "shard":
    tensors.write_all = die_in_shard
else:
    manifest.write_text = die_before_manifest
capture(tiny_sd(), QUERIES, folder=sys.argv[1], **OPTIONS)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    capture(tiny_sd(), QUERIES, folder=folder, **OPTIONS)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("moment,count", [("shard", 40), ("manifest", 2)])
def test_kill_9_and_rerun(undisturbed, tmp_path, moment, count):
    command = [sys.executable, "-c", VICTIM, str(tmp_path), moment, str(count)]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    left = list(tmp_path.glob("*.part"))
    assert left, "it was killed in the middle of a file"
    with pytest.warns(UserWarning, match="was cut off"):
        half = Activations.open(tmp_path)
    assert not half.damaged()
    subject = tiny_sd()
    acts = capture(subject, QUERIES, folder=tmp_path, **OPTIONS)
    assert acts.complete and not acts.damaged()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        p.name: p.read_bytes() for p in undisturbed.iterdir()
    }
