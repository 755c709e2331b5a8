"""Measure finished cells of the stored tables again, drawn at random, and say whether the numbers are the same.

    python benchmarks/reproduce.py [--count 60] [--draw 0] [--tables emoji_leaderboard emoji_erasure lm_unlearning]

Nothing is written but fits, in a folder that is thrown away. Seconds and memory are left out; every other number that
both the stored and the new row hold is compared: counts exactly, other numbers to four digits, since another processor
rounds sums otherwise. Ends with one line of JSON: cells, same, and the cells that differ.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from sweeping import FOLDER, Table

from concept_probe.bench import RowStore, SweepRow
from concept_probe.threads import use_threads

TABLES = ("emoji_leaderboard", "emoji_erasure", "emoji_attacks", "lm_unlearning")
NOT_COMPARED = ("seconds", "peak")
"""They are of the machine, not of the model."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60, help="cells of all tables together")
    parser.add_argument("--draw", type=int, default=0, help="seed of the draw of cells")
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    use_threads(options.threads)
    console, draw = Console(stderr=True, width=160), random.Random(options.draw)
    cells, differing, unknown = 0, {}, 0
    with tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(options.tables):
            share = (options.count + place) // len(options.tables)
            sweeps = [order.sweep() for order in orders(name, Path(folder))]
            stored = {k: row for k, row in RowStore(FOLDER / f"{name}.jsonl").rows().items() if row.status == "done"}
            found = {key: (sweep, cell) for sweep in sweeps for key, cell in sweep.keys().items() if key in stored}
            unknown += len(stored.keys() - found.keys())
            for key in draw.sample(sorted(found), min(share, len(found))):
                sweep, cell = found[key]
                row = sweep.measured(key, cell)
                wrong = list(differences(stored[key], row))
                cells += 1
                if wrong:
                    differing[f"{name}: {row.eraser}, {row.concept}, {row.attack}, {row.seed}"] = wrong
                what = "; ".join(wrong) or "same"
                console.print(name, row.eraser, row.concept, row.attack, row.seed, f"{row.seconds:.0f} s:", what)
    print(json.dumps({"cells": cells, "same": cells - len(differing), "differ": differing, "unknown": unknown}))


def orders(name: str, folder: Path) -> list:
    """What a table measures, every eraser and attack of it."""
    table: Table = import_module(name).TABLE
    chosen = Namespace(
        concepts=list(table.concepts), seeds=list(table.seeds), erasers=["all"], attacks=["all"], count=None
    )
    chosen.rows, chosen.work = folder / f"{name}.jsonl", folder / name
    return table.orders(chosen)


def differences(stored: SweepRow, now: SweepRow) -> Iterator[str]:
    """One sentence per number that is not the same."""
    if now.status != "done":
        yield f"failed: {now.error}"
        return
    yield from _between(stored.values, now.values, "")


def _between(stored: Any, now: Any, where: str) -> Iterator[str]:
    if isinstance(stored, Mapping) and isinstance(now, Mapping):
        for name in stored.keys() & now.keys() - set(NOT_COMPARED):
            yield from _between(stored[name], now[name], f"{where} {name}".strip())
    elif isinstance(stored, list) and isinstance(now, list | tuple) and len(stored) == len(now):
        for place, (old, new) in enumerate(zip(stored, now, strict=True)):
            yield from _between(old, new, f"{where} {place}")
    elif isinstance(stored, float) and isinstance(now, float):
        if not math.isclose(stored, now, rel_tol=5e-5, abs_tol=1.5e-5):
            yield f"{where}: {stored} became {now}"
    elif stored is not None and now != stored:
        yield f"{where}: {stored} became {now}"


if __name__ == "__main__":
    main()
