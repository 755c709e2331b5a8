"""Kill -9 a training run at random moments, start it again, and compare the weights with those of an uninterrupted run.

    python benchmarks/sae_resume.py [--kills 20]

Each kill hits a run in a process of its own. Every second one hits wherever the run happens to be: in a step, in starting
up; the others hit in the middle of writing a snapshot, with half of one of its tensors on the disk. Ends with
one line of JSON: how often it was killed, and whether the finished weights were identical each time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from concept_probe.learn import TrainingOptions, load_sae, train_sae
from concept_probe.storage import tensors
from concept_probe.threads import use_threads
from concept_probe.types import Site

SITE = Site("synthetic", "rows")
STEPS, BATCH, D = 120, 256, 64


def rows():
    """The same rows each time: functions of their number."""
    mix = torch.randn(4 * D, D, generator=torch.Generator().manual_seed(1))
    number = 0
    while True:
        g = torch.Generator().manual_seed(1000 + number)
        yield (torch.rand(BATCH, 4 * D, generator=g) < 0.02).float() @ mix + 0.01 * torch.randn(BATCH, D, generator=g)
        number += 1


def train(folder: str | None):
    use_threads(1)
    return train_sae(
        rows(),
        site=SITE,
        k=8,
        expansion=16,
        samples=STEPS * BATCH,
        folder=folder,
        on_step=lambda step: time.sleep(0.005),
        options=TrainingOptions(batch=BATCH, dead_after=20 * BATCH, save_every=5),
    )


def killed_run(folder: Path, chance: random.Random, longest: float) -> int:
    """Start and kill until the run is whole; each life lasts a random time. Returns how often it was killed."""
    kills = 0
    while True:
        writing = kills % 2 == 1 and kills < 4
        after = ["--dies-in-write", str(chance.randrange(1, 60))] if writing else []
        process = subprocess.Popen([sys.executable, __file__, "--worker", str(folder), *after])
        try:
            process.wait(timeout=chance.uniform(0.2, longest) if kills < 4 and not writing else None)
            if writing and process.returncode == -signal.SIGKILL:
                kills += 1
                continue
            if process.returncode:
                raise SystemExit(f"the run failed with exit status {process.returncode}")
            return kills
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1


def die_in_write(number: int) -> None:
    """Kill this process in the middle of the `number`-th piece of a file of tensors that it writes."""
    write_all, left = tensors.write_all, number

    def dying(descriptor: int, data: bytes | memoryview) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.write(descriptor, memoryview(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write_all(descriptor, data)

    tensors.write_all = dying


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many kills there must be at least")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--dies-in-write", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        if options.dies_in_write:
            die_in_write(options.dies_in_write)
        train(options.worker)
        return
    start = time.perf_counter()
    whole = train(None)
    alone = time.perf_counter() - start
    chance, table = random.Random(0), Table("run", "kills", "identical")
    kills, identical, runs = 0, 0, 0
    while kills < options.kills:
        with tempfile.TemporaryDirectory() as folder:
            count = killed_run(Path(folder), chance, 6 + alone)
            again = load_sae(folder)
            same = all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))
        kills, identical, runs = kills + count, identical + same, runs + 1
        table.add_row(str(runs), str(count), "yes" if same else "no")
    Console().print(table)
    print(json.dumps({"kills": kills, "runs": runs, "identical": identical == runs}))


if __name__ == "__main__":
    main()
