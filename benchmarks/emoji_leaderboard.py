"""Compare erasers on `emoji`: 4 objects and 1 style, ten attacks, 3 seeds; go on where it was interrupted.

    python benchmarks/emoji_leaderboard.py [--seeds 0] [--concepts camel] [--erasers uce esd] [--attacks merging] [--retry]
    python benchmarks/emoji_leaderboard.py --erasers all --attacks all
    python benchmarks/emoji_leaderboard.py --summary [--output FOLDER]

Rows are appended to benchmarks/rows/emoji_leaderboard.jsonl and never measured twice, whoever else runs the same
command at the same time; fits are kept in runs/emoji_leaderboard. All cells of seed 0 come before those of seed 1.
With `--summary` nothing is run: the table of the stored rows, and with `--output` also the leaderboard as HTML, Markdown
and JSON. Ends with one line of JSON.
"""

from __future__ import annotations

from argparse import Namespace

import sweeping
from emoji_settings import ATTACK_SETTINGS, LEADERBOARD

import concept_probe as cp
from concept_probe.bench import Grid, SweepOrder, SweepRow, SweepSettings, leaderboard
from concept_probe.bench.board.summary import summary_of
from concept_probe.report import board_to_markdown, write_board

CONCEPTS = ("camel", "guitar", "pizza", "umbrella", "contrast")
ERASERS = (
    "ablate_features", "ablate_vectors", "uce", "uce (chosen)", "rece", "speed", "mace", "emcid", "esd", "esd (anchor)",
    "concept_ablation", "spm", "adv_unlearn", "few_shot", "adversarial_preservation", "receler", "negative_prompt",
    "blocklist", "sld (maximum)", "safree (suffix)", "cgce", "watch",
)  # fmt: skip
ATTACKS = (
    "paraphrases", "implicit_prompts", "embedding_inversion", "visual_context", "latent_inversion", "relearning",
    "relearning (text encoder)", "merging", "unablation", "quantisation",
)  # fmt: skip


def orders(options: Namespace) -> list[SweepOrder]:
    methods, attacks = sweeping.named(LEADERBOARD, options.erasers), sweeping.named(ATTACK_SETTINGS, options.attacks)
    concepts = tuple(cp.concept(name) for name in options.concepts)
    grid = Grid(concepts, methods, attacks, tuple(options.seeds), SweepSettings(cp.Sampling(steps=6)), twin=True)
    return [SweepOrder(grid, "emoji", "emoji-untaught", options.work, options.rows)]


def summary(rows: list[SweepRow], options: Namespace) -> dict:
    ours = [m.name for m in LEADERBOARD if m.ours]
    about = {"rows": options.rows.name, "cells": str(len(rows))}
    board = leaderboard(rows, subject="emoji", ours=ours, provenance=about)
    if options.output is not None:
        write_board(options.output, board)
    print(board_to_markdown(board))
    return summary_of(board, rows)


TABLE = sweeping.Table(__doc__ or "", "emoji_leaderboard", orders, summary, CONCEPTS, ERASERS, ATTACKS, seeds=(0, 1, 2))

if __name__ == "__main__":
    sweeping.main(TABLE)
