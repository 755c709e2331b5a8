"""A sweep small enough for a test: tiny subjects whose pictures show what they know."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from concept_probe.attacks import Budget
from concept_probe.bench import AttackSetting, Grid, MethodSetting, RowStore, Sweep, SweepSettings
from concept_probe.erasers import Blocklist, Uce
from concept_probe.types import Concept, Judge, Sampling
from tests.auditing.known import Known, Reader, concept

SETTINGS = SweepSettings(
    Sampling(steps=2),
    {"target": 4, "paraphrases": 3, "implicit": 3, "neighbours": 4, "unrelated": 4},
    Budget(queries=12, gradient_steps=2, examples=2),
)
METHODS = (MethodSetting("blocklist", Blocklist()), MethodSetting("uce", Uce()))
ATTACK_SETTINGS = (AttackSetting("paraphrases", "paraphrases"),)


@dataclass(frozen=True)
class SeesAll:
    """Sees what a picture's shade says, whoever drew it."""

    name: str = "shades"
    version: str = "1"
    labels: tuple[str, ...] = ("cat", "dog", "sun", "none")

    def probabilities(self, images: Tensor) -> Tensor:
        seen = torch.zeros(len(images), len(self.labels))
        seen[torch.arange(len(images)), torch.arange(len(images)) % 3] = 1.0
        return seen


SEES_ALL = SeesAll()


def judges(_: Concept) -> tuple[Judge, None]:
    return Reader(), None


def grid(seeds: Sequence[int] = (0,), methods: Sequence[MethodSetting] = METHODS, twin: bool = False) -> Grid:
    return Grid((concept(),), tuple(methods), ATTACK_SETTINGS, tuple(seeds), SETTINGS, twin)


def sweep(folder: Path, of: Grid | None = None) -> Sweep:
    of = grid() if of is None else of
    twin = Known(0, concept(), without="cat") if of.twin else None
    return Sweep(of, Known(0, concept()), folder, RowStore(folder / "rows.jsonl"), twin, judges)


def text(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
