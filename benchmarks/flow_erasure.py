"""Erase each of the 8 removed objects from `emoji-flow` with every eraser that works on it, and count what is drawn.

    python benchmarks/flow_erasure.py [--concepts camel snake] [--erasers uce erase_anything] [--rows FILE]
    python benchmarks/flow_erasure.py --summary

The erasers and their settings are those of benchmarks/emoji_erasure.py, without those that need cross-attention or an
autoencoder of the denoiser, and with those that need a joint attention. With `--summary` the tables of the rows that are stored beside
this file are printed and nothing is run. Every choice is made on the select split; the table is of test sentences with
paired seeds. Rows are appended to FILE and not measured twice. Ends with one line of JSON: by eraser the share of test
pictures of the object, `before` and `after`; how much of the right pictures of `neighbours` and `unrelated` objects is left;
and `n`, how many pictures of the objects were asked for.
"""

from __future__ import annotations

from argparse import Namespace

import sweeping
from emoji_settings import ERASURE
from rich.console import Console

import concept_probe as cp
from concept_probe.bench import Grid, MethodSetting, SweepOrder, SweepRow, SweepSettings
from concept_probe.bench.board.per_kind import ASKED_FOR, by_concept, by_eraser, measured_without_attack
from concept_probe.erasers.finetune.erase_anything import EraseAnything
from concept_probe.testbed.vocabulary import REMOVED_OBJECTS

MODEL = "emoji-flow"
PER_KIND = 32
"""Test pictures per kind of prompt."""
TEXT_FEATURES = ("ablate_features", "itd", "steer")
"""Of those that work with found features, the ones that take them from the text encoder."""
ERASERS = (
    *(m for m in ERASURE if m.eraser.attention != "cross" and (not m.works_with_features or m.name in TEXT_FEATURES)),
    MethodSetting("erase_anything", EraseAnything()),
    MethodSetting("erase_anything (anchor)", EraseAnything(base="anchor")),
)


def orders(options: Namespace) -> list[SweepOrder]:
    concepts = tuple(cp.concept(name) for name in options.concepts)
    settings = SweepSettings(counts=dict.fromkeys(ASKED_FOR, options.count or PER_KIND), asking="spread")
    grid = Grid(concepts, sweeping.named(ERASERS, options.erasers), (), tuple(options.seeds), settings)
    return [SweepOrder(grid, MODEL, None, options.work, options.rows)]


def summary(rows: list[SweepRow], options: Namespace) -> dict:
    console = Console(width=160)
    table, figures = by_eraser(rows)
    console.print(by_concept(rows), table)
    asked = {
        name: [r.values["after"]["target"][1] for r in measured_without_attack(rows) if r.eraser == name]
        for name in figures
    }
    told = ("before", "after", "neighbours", "unrelated")
    return {name: {**{k: of[k] for k in told}, "n": sum(asked[name])} for name, of in figures.items()}


TABLE = sweeping.Table(
    __doc__ or "", "flow_erasure", orders, summary, REMOVED_OBJECTS, [m.name for m in ERASERS], seeds=(5,)
)

if __name__ == "__main__":
    sweeping.main(TABLE)
