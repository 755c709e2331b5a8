"""A training run fed by a running subject, slow enough to be killed: python live_run.py FOLDER."""

from __future__ import annotations

import sys

from concept_probe.activations import Live
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.threads import use_threads
from tests.learn.long_run import report
from tests.learn.training import trained


def run(folder: str | None, on_step=None):
    use_threads(1)
    subject = tiny_sd()
    rows = Live(subject, list(tiny_concept().unrelated) * 2, sites=subject.sites("text_stream")[:1], rows=200)
    return trained(
        rows,
        k=3,
        expansion=4,
        samples=64 * 150,
        batch=64,
        folder=folder,
        save_every=40,
        dead_after=64 * 20,
        on_step=on_step,
    )


if __name__ == "__main__":
    run(sys.argv[1], report)
