"""Which learning rate is best at which width, and how far the default is from it?

    python benchmarks/sae_rate.py [--settings 128x4x8x600 512x4x16x400] [--turns 0.035 0.05 0.07]

Each setting is width x expansion x k x steps, on rows of planted directions (as in planted.py). Every setting is trained
at the rates c / sqrt(d), c by about how much a step turns a unit row; the table shows FVU
on held-out rows, and the share of features that are silent there. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from functools import partial

from planted import Data, train
from rich.console import Console
from rich.progress import track
from rich.table import Table
from trainers import SITE, Ours, random_start

from concept_probe.learn.train.settings import RATE, Run, settle

SETTINGS = ["128x4x8x300", "128x4x8x1500", "128x16x8x600", "512x4x16x600", "1024x4x16x400", "4096x2x32x200"]
BATCH = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=SETTINGS)
    parser.add_argument("--turns", nargs="+", type=float, default=[0.0175, 0.035, 0.05, 0.07, 0.14])
    o = parser.parse_args()
    table = Table("width x expansion x k x steps", *(f"{c:g} / √d" for c in o.turns), title=f"default: {RATE} / √d")
    figures: dict[str, dict[str, float]] = {}
    for named in o.settings:
        d, expansion, k, steps = map(int, named.split("x"))
        data = Data.planted(d, d * expansion, k, seed=0)
        first, held = data.rows(BATCH, 0), data.rows(4096, 10**8)
        start = random_start(first, d * expansion, k, seed=0)
        cells = {}
        for turn in track(o.turns, named):
            run = Run(SITE, k=k, expansion=expansion, rate=turn / d**0.5)
            settings = settle(run, SITE, SITE, d, steps * BATCH, BATCH)
            make = partial(Ours, start, first, settings)
            cells[turn] = train(make, settings, data, settings.rate, held)
        table.add_row(named, *(f"{r.fvu:.3f} ({r.silent:.0%})" for r in cells.values()))
        figures[named] = {f"{c:g}": r.fvu for c, r in cells.items()}
    Console(width=140).print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
