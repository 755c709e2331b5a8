"""Erase real and taught concepts from SmolLM2 with every eraser, and ask what is left.

    python benchmarks/lm_unlearning.py [--concepts Korvath Japan] [--erasers npo rmu] [--rows FILE] [--processes 2]
    python benchmarks/lm_unlearning.py --summary

Six real concepts are erased from SmolLM2, six invented ones from SmolLM2 that was taught them (once, minutes; kept in
the user's cache), whose never-taught twin is SmolLM2 itself. Texts are judged by their gold answers. Rows are appended
to FILE and not measured twice. `untouched` and `never taught` stand beside the erasers: the first must be called intact,
the second erased. Ends with one line of JSON.
"""

from __future__ import annotations

from argparse import Namespace

import sweeping
from lm_settings import ATTACKS, METHODS, REAL, SETTINGS, taught_smollm2
from rich.console import Console

import concept_probe as cp
from concept_probe.bench import NEVER_TAUGHT, UNTOUCHED, Grid, SweepOrder, SweepRow
from concept_probe.bench.board.unlearning import records, unlearning_figures, unlearning_tables
from concept_probe.testbed import taught


def orders(options: Namespace) -> list[SweepOrder]:
    methods, attacks = sweeping.named(METHODS, options.erasers), sweeping.named(ATTACKS, options.attacks)
    out = []
    for invented, subject, twin in ((True, taught_smollm2, "smollm2"), (False, "smollm2", None)):
        names = [name for name in options.concepts if (name in taught.invented_names()) == invented]
        if names:
            if invented:
                taught_smollm2()  # before several processes would teach it
            concepts = tuple(cp.concept(name, "smollm2") for name in names)
            grid = Grid(concepts, methods, attacks, tuple(options.seeds), SETTINGS, twin=invented)
            out.append(SweepOrder(grid, subject, twin, options.work, options.rows))
    return out


def summary(rows: list[SweepRow], options: Namespace) -> dict:
    console, out = Console(width=260), {}
    for kind in ("taught", "real"):
        own = records([r for r in rows if (r.concept in taught.invented_names()) == (kind == "taught")])
        found = {e: one for e in dict.fromkeys(r["eraser"] for r in own) if (one := unlearning_figures(own, e))}
        console.print(
            f"\n{kind} concepts: right answers, the largest index and the verdict of all their facts together"
        )
        console.print(*unlearning_tables(own, found), sep="\n")
        out[kind] = found
    bare = {name: out["taught"].get(name, {}) for name in (UNTOUCHED, NEVER_TAUGHT)}
    minutes = sum(r.seconds + r.values.get("fit", {}).get("seconds", 0.0) for r in rows) / 60
    return {
        "erasers": {m.name: {k: out[k][m.name] for k in out if m.name in out[k]} for m in METHODS},
        **{f"{k} verdict": bare[k].get("verdict") for k in bare},
        **{f"{k} verdicts": bare[k].get("verdicts", {}) for k in bare},
        "cells": len(rows), "minutes": round(minutes),
    }  # fmt: skip


CONCEPTS = [name for pair in zip(taught.invented_names(), REAL, strict=True) for name in pair]
NAMES = [m.name for m in METHODS]
TABLE = sweeping.Table(__doc__ or "", "lm_unlearning", orders, summary, CONCEPTS, NAMES, [a.name for a in ATTACKS])

if __name__ == "__main__":
    sweeping.main(TABLE)
