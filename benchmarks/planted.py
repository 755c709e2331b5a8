"""Do sparse autoencoders recover a dictionary that was planted? This package beside other trainers, same rows and steps.

    python benchmarks/planted.py [--width 128] [--planted 512] [--steps 1000] [--batch 1024] [--seeds 2]

Rows are sums of a few planted unit directions, some of which are on often and most rarely, plus a little noise. Every
trainer runs at three rates, and the rate with the least FVU on held-out rows counts; this package also at its default.
All begin at the same weights, warm up and decay alike, and revive features that a fortieth of the run left silent.
Mean max cosine: of every planted direction with the feature nearest to it. Recall: share of planted directions with a
cosine above 0.9. Precision: share of features that fire on held-out rows whose nearest planted direction is that near.
The control is the untrained start. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from trainers import SITE, Ours, SaeLens, Sparsify, Start, random_start

from concept_probe.learn.train.settings import Run, TrainingSettings, settle

RATES = (2e-3, 5e-3, 1e-2)
DEFAULT = "concept_probe, default rate"
NEAR = 0.9
HELD = 16_384


@dataclass(frozen=True)
class Data:
    """Rows that are sums of planted directions."""

    directions: Tensor
    """(g, d) unit rows"""
    odds: Tensor
    """(g,) how often each is on"""
    noise: float
    seed: int

    @classmethod
    def planted(cls, d: int, g: int, on: float, seed: int) -> Data:
        directions = torch.randn(g, d, generator=torch.Generator().manual_seed(77_000 + seed))
        odds = 1 / torch.arange(1.0, g + 1).sqrt()
        return cls(
            torch.nn.functional.normalize(directions, dim=1), (odds * on / odds.sum()).clamp_max(0.5), 0.02, seed
        )

    def rows(self, count: int, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + number)
        g, d = self.directions.shape
        on = torch.rand(count, g, generator=generator) < self.odds
        strengths = 0.5 + torch.rand(count, g, generator=generator)
        return (on * strengths) @ self.directions + self.noise * torch.randn(count, d, generator=generator)


@dataclass(frozen=True)
class Result:
    cosine: float
    recall: float
    precision: float
    fvu: float
    silent: float
    """Share of features that fire on no held-out row."""


def judge(data: Data, decoder: Tensor, held: Tensor, written: Tensor, fires: Tensor) -> Result:
    cosines = torch.nn.functional.normalize(decoder, dim=1) @ data.directions.mT
    nearest = cosines.amax(0)
    fvu = (held - written).square().sum() / (held - held.mean(0)).square().sum()
    precise = (cosines[fires].amax(1) > NEAR).double().mean() if fires.any() else torch.zeros(())
    recall = (nearest > NEAR).double().mean()
    return Result(*(float(x) for x in (nearest.mean(), recall, precise, fvu, (~fires).double().mean())))


def firing(trainer: Ours | SaeLens | Sparsify, held: Tensor) -> Tensor:
    """(f,) bool: which features fire on the rows `held`."""
    if isinstance(trainer, SaeLens):
        return (trainer.sae.encode(held) > 0).any(0)
    if isinstance(trainer, Ours):
        codes = trainer.learner.result({}).encode(held)
        values, indices = codes.values, codes.indices
    else:
        values, indices, _ = trainer.sae.encode(held)
    fires = torch.zeros(len(trainer.decoder()), dtype=torch.bool)
    fires[indices[values > 0]] = True
    return fires


@torch.no_grad()
def result(data: Data, trainer: Ours | SaeLens | Sparsify, held: Tensor) -> Result:
    return judge(data, trainer.decoder(), held, trainer.written(held), firing(trainer, held))


def train(
    make: Callable[[], Ours | SaeLens | Sparsify], settings: TrainingSettings, data: Data, rate: float, held: Tensor
):
    trainer = make()
    for number in range(settings.steps):
        if not isinstance(trainer, Ours):
            for group in trainer.optimiser.param_groups:
                group["lr"] = rate * settings.rate_at(number) / settings.rate
        trainer.step(data.rows(settings.batch, number))
    return result(data, trainer, held)


def trainers(
    start: Start, first: Tensor, settings: TrainingSettings
) -> dict[str, Callable[[float], Ours | SaeLens | Sparsify]]:
    window = settings.dead_after
    return {
        DEFAULT: lambda rate: Ours(start, first, settings),
        "concept_probe": lambda rate: Ours(start, first, replace(settings, rate=rate)),
        "sparsify": lambda rate: Sparsify(start, rate, auxk=1 / 32, window=window),
        "sae-lens": lambda rate: SaeLens(start, rate, window=max(1, window // settings.batch)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = (("width", 128), ("planted", 512), ("expansion", 4), ("on", 8), ("steps", 1000), ("batch", 1024))
    for name, value in (*numbers, ("seeds", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    o = parser.parse_args()
    found: dict[str, list[Result]] = {}
    for seed in range(o.seeds):
        data = Data.planted(o.width, o.planted, o.on, seed)
        first, held = data.rows(o.batch, 0), data.rows(HELD, 10**8)
        settings = settle(Run(SITE, k=o.on, expansion=o.expansion), SITE, SITE, o.width, o.steps * o.batch, o.batch)
        start = random_start(first, o.width * o.expansion, o.on, seed)
        makers = trainers(start, first, settings)
        found.setdefault("untrained", []).append(result(data, makers[DEFAULT](0.0), held))
        for name, make in makers.items():
            tried = []
            for rate in track(RATES if name != DEFAULT else (settings.rate,), f"{name}, seed {seed}"):
                try:
                    tried.append(train(lambda make=make, rate=rate: make(rate), settings, data, rate, held))
                except ImportError as error:
                    Console(stderr=True).print(f"{name} is not installed ({error.name})")
                    break
            if tried:
                found.setdefault(name, []).append(min(tried, key=lambda r: r.fvu))
    fields = ("cosine", "recall", "precision", "fvu", "silent")
    table = Table("trainer", *fields, title=f"mean of {o.seeds} seeds ± its standard error")
    means: dict[str, dict[str, float]] = {}
    for name, results in found.items():
        columns = {field: [getattr(r, field) for r in results] for field in fields}
        means[name] = {field: statistics.fmean(column) for field, column in columns.items()}
        errors = {f: statistics.stdev(c) / math.sqrt(len(c)) if len(c) > 1 else math.nan for f, c in columns.items()}
        table.add_row(name, *(f"{means[name][f]:.3f} ± {errors[f]:.3f}" for f in fields))
    Console(width=120).print(table)
    print(json.dumps(means))


if __name__ == "__main__":
    main()
