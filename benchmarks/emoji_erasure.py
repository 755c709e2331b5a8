"""Erase each of the 8 removed objects from `emoji` with every eraser, and count what is drawn.

    python benchmarks/emoji_erasure.py [--concepts camel snake] [--erasers uce leace] [--rows FILE]
    python benchmarks/emoji_erasure.py --summary

With `--summary` the tables of the rows that are stored beside this file are printed and nothing is run.
Every choice (features and strength, number of columns or directions) is made on the select split; the table is of test
sentences with paired seeds. Rows are appended to FILE and not measured twice. Ends with one line of JSON.
"""

from __future__ import annotations

from argparse import Namespace

import sweeping
from emoji_settings import ERASURE
from rich.console import Console

import concept_probe as cp
from concept_probe.bench import Grid, SweepOrder, SweepRow, SweepSettings
from concept_probe.bench.board.per_kind import ASKED_FOR, by_concept, by_eraser
from concept_probe.testbed.vocabulary import REMOVED_OBJECTS

PER_KIND = 32
"""Test pictures per kind of prompt."""


def orders(options: Namespace) -> list[SweepOrder]:
    concepts = tuple(cp.concept(name) for name in options.concepts)
    settings = SweepSettings(counts=dict.fromkeys(ASKED_FOR, options.count or PER_KIND), asking="spread")
    grid = Grid(concepts, sweeping.named(ERASURE, options.erasers), (), tuple(options.seeds), settings)
    return [SweepOrder(grid, "emoji", None, options.work, options.rows)]


def summary(rows: list[SweepRow], options: Namespace) -> dict:
    console = Console(width=160)
    table, figures = by_eraser(rows)
    console.print(by_concept(rows), table)
    return figures


TABLE = sweeping.Table(
    __doc__ or "", "emoji_erasure", orders, summary, REMOVED_OBJECTS, [m.name for m in ERASURE], seeds=(5,)
)

if __name__ == "__main__":
    sweeping.main(TABLE)
