"""One of several processes that train one autoencoder: python distributed_run.py RANK SIZE PORT SPLIT FOLDER LAST."""

from __future__ import annotations

import contextlib
import os
import sys

import torch
import torch.distributed as dist

from concept_probe.learn import TrainingStep
from concept_probe.threads import use_threads
from tests.learn.planted import SITE, Planted
from tests.learn.training import trained

OPTIONS = {"k": 4, "expansion": 4, "batch": 128, "samples": 128 * 40, "dead_after": 600, "save_every": 10}


class Stop(Exception):
    pass


def run(rule: str, split: str, folder: str | None = None, last: int = 40):
    """Train to the end, or stop after step `last`."""

    def on_step(step: TrainingStep) -> None:
        if step.step == last:
            raise Stop

    use_threads(1)
    rows = Planted(dtype=torch.float64).batches(128)
    return trained(rows, site=SITE, rule=rule, split=split, folder=folder, on_step=on_step, **OPTIONS)  # pyright: ignore


if __name__ == "__main__":
    rank, size, port, rule, split, folder, last = sys.argv[1:]
    where = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=where, rank=int(rank), world_size=int(size))
    with contextlib.suppress(Stop):
        run(rule, split, folder, int(last))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may outlive the group, and an interpreter that ends before them aborts
