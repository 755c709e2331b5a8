"""A run fed by a running subject that was killed and started again gives the weights of one that was not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from concept_probe.learn import load_sae
from tests.learn.live_run import run
from tests.learn.test_sae_resume import ROOT, kill_at, same


def start(folder) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.learn.live_run", str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_and_started_again_ends_in_the_same_bits(tmp_path):
    threads = torch.get_num_threads()
    try:
        whole = run(None)
    finally:
        torch.set_num_threads(threads)
    assert 97 <= kill_at(start(tmp_path), 97) < 149
    last = start(tmp_path)
    assert [int(line) for line in last.stdout or ()] == list(range(80, 150))
    assert last.wait() == 0
    again = load_sae(tmp_path)
    assert same(again, whole)
    assert whole.made_by["subject"] == "tiny-sd-0" and whole.made_by["prompts"]
