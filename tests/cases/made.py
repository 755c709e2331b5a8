"""What tests of files write: a row of a sweep, and a small training run."""

from __future__ import annotations

from pathlib import Path

import torch

from concept_probe.bench import SweepRow
from concept_probe.learn import TrainingOptions, train_sae
from concept_probe.types import Site

SITE = Site("synthetic", "rows")


def row(key: str) -> SweepRow:
    return SweepRow(key, "uce", "camel", "none", 0, "done", {"after": [1, 2]})


def trained(folder: Path, **more):
    rows = (torch.randn(64, 8, generator=torch.Generator().manual_seed(i)) for i in range(4))
    options = TrainingOptions(batch=64, dead_after=128, save_every=2)
    return train_sae(rows, site=SITE, k=2, expansion=2, samples=256, folder=folder, options=options, **more)
