"""Kill -9 a training run at random moments, start it again, and compare the weights with those of an uninterrupted run.

    python benchmarks/sae_resume.py [--kills 20]

Each kill hits a run in a process of its own, wherever it happens to be: in a step, in writing a snapshot, in starting
up. Ends with one line of JSON: how often it was killed, and whether the finished weights were identical each time.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from concept_probe.learn import TrainingOptions, load_sae, train_sae
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
        process = subprocess.Popen([sys.executable, __file__, "--worker", str(folder)])
        try:
            process.wait(timeout=chance.uniform(0.2, longest) if kills < 4 else None)
            if process.returncode:
                raise SystemExit(f"the run failed with exit status {process.returncode}")
            return kills
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many kills there must be at least")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
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
