"""A training run in a process of its own, slow enough to be killed: python long_run.py FOLDER [STORE]."""

from __future__ import annotations

import sys
import time

from concept_probe.learn import TrainingStep
from concept_probe.threads import use_threads
from tests.learn.planted import SITE, Planted
from tests.learn.training import trained


def report(step: TrainingStep) -> None:
    print(step.step, flush=True)
    time.sleep(0.004)


def run(folder: str | None, store: str | None, on_step=None):
    use_threads(1)
    if store is None:
        source, site = Planted().batches(200), SITE
    else:
        from concept_probe.activations import Activations

        source, site = Activations.open(store), None
    return trained(
        source,
        site=site,
        k=3,
        expansion=4,
        samples=128 * 150,
        batch=128,
        folder=folder,
        save_every=40,
        dead_after=128 * 20,
        on_step=on_step,
    )


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None, report)
