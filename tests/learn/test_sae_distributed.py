"""Two processes give what one gives, whether they share rows or features; another number may go on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from concept_probe.learn import Sae, load_sae
from concept_probe.learn.train.parallel import Team
from tests.learn.distributed_run import run

ROOT = Path(__file__).parents[2]


def together(size: int, rule: str, split: str, folder: Path, last: int = 40) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.learn.distributed_run",
                *map(str, (rank, size, port, rule, split, folder, last)),
            ],
            cwd=ROOT,
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * size, "\n".join(errors)


def same(one: Sae, two: Sae) -> None:
    for (name, a), (_, b) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["topk", "batchtopk"])
@pytest.mark.parametrize("split", ["rows", "features"])
def test_two_processes_give_the_weights_of_one(tmp_path, rule, split):
    together(2, rule, split, tmp_path)
    same(load_sae(tmp_path), run(rule, "rows"))


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, before, after):
    together(before, "topk", "features", tmp_path, last=24)
    assert not (tmp_path / "cfg.json").exists()
    together(after, "topk", "features", tmp_path)
    same(load_sae(tmp_path), run("topk", "rows"))


def test_rows_or_features_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="127 rows of a batch do not divide among 2 processes"):
        Team(0, 2, "rows").rows(127)
    with pytest.raises(ValueError, match="split is 'both'; it is one of rows, features"):
        Team.here("both")  # pyright: ignore[reportArgumentType]


def test_one_process_alone_changes_nothing():
    team, x = Team.here("rows"), torch.ones(3)
    assert (team.rank, team.size) == (0, 1) and team.leads
    assert torch.equal(team.sum_rows(x), torch.ones(3)) and torch.equal(team.gather_features(x), torch.ones(3))
