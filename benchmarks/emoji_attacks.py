"""Attack weak erasures of `emoji`, and the never-taught twin, with every attack at a small budget.

    python benchmarks/emoji_attacks.py [--concepts camel] [--attacks quantisation merging] [--rows FILE]
    python benchmarks/emoji_attacks.py --summary
    python benchmarks/emoji_attacks.py --attacks p4d (300 steps) --erasers blocklist

Rates are the highest along each attack's curve, and the attack's own control beside them. The attacker holds a copy of
the untouched model. Rows are appended to FILE and not measured twice. Ends with one line of JSON.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import sweeping
from emoji_settings import ATTACK_SETTINGS
from rich.console import Console

import concept_probe as cp
from concept_probe.attacks import Budget
from concept_probe.bench import AttackSetting, Grid, MethodSetting, SweepOrder, SweepRow, SweepSettings
from concept_probe.bench.board.per_attack import attack_table
from concept_probe.erasers import Blocklist, Uce
from concept_probe.testbed.vocabulary import REMOVED_OBJECTS

METHODS = (MethodSetting("blocklist", Blocklist()), MethodSetting("uce", Uce(sources=("target",))))
BUDGET = Budget(queries=32, gradient_steps=30, examples=4)
OWN = (
    AttackSetting("embedding_inversion (1 token)", "embedding_inversion", {"tokens": 1}),
    AttackSetting("classifier_guidance (own judge)", "classifier_guidance", {"guide": "emoji"}),
    *(AttackSetting(f"p4d ({n} steps)", "p4d", budget=replace(BUDGET, gradient_steps=n)) for n in (150, 300)),
)
ATTACKS = tuple(replace(a, holds_copy=True) for a in (*ATTACK_SETTINGS, *OWN) if not a.name.startswith("relearning ("))


def orders(options: Namespace) -> list[SweepOrder]:
    concepts = tuple(cp.concept(name) for name in options.concepts)
    attacks = sweeping.named(ATTACKS, options.attacks)
    settings = SweepSettings(cp.Sampling(steps=10), {}, BUDGET)
    grid = Grid(concepts, sweeping.named(METHODS, options.erasers), attacks, tuple(options.seeds), settings, twin=True)
    return [SweepOrder(grid, "emoji", "emoji-untaught", options.work, options.rows, copy=True)]


def summary(rows: list[SweepRow], options: Namespace) -> dict:
    table, figures = attack_table(rows)
    Console(width=140).print(table)
    return figures


TABLE = sweeping.Table(
    __doc__ or "", "emoji_attacks", orders, summary, REMOVED_OBJECTS, [m.name for m in METHODS],
    [a.name for a in ATTACKS],
)  # fmt: skip

if __name__ == "__main__":
    sweeping.main(TABLE)
