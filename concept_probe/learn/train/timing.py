"""How long a step of training takes here, by a few steps on random rows."""

from __future__ import annotations

import time
from itertools import pairwise, repeat

import torch

from concept_probe.learn.train.settings import TrainingOptions, TrainingStep
from concept_probe.learn.train.train import train_sae
from concept_probe.types import Site

TIMED_STEPS = 3


def step_seconds(d: int, *, k: int = 16, expansion: int = 16, batch: int = 1024) -> float:
    """Seconds of the quickest of a few steps after the first, which is slower than any other."""
    rows = torch.randn(batch, d, generator=torch.Generator().manual_seed(0))
    ends: list[float] = []

    def note(_: TrainingStep) -> None:
        ends.append(time.perf_counter())

    train_sae(
        repeat(rows, TIMED_STEPS), site=Site.parse("timed/rows:out"), k=k, expansion=expansion, samples=TIMED_STEPS * batch, on_step=note,
        options=TrainingOptions(batch=batch),
    )  # fmt: skip
    return min(after - before for before, after in pairwise(ends))
