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

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console

import concept_probe as cp
from concept_probe.attacks import ATTACKS
from concept_probe.bench import AttackSetting, Grid, MethodSetting, Row, Settings, Store, Sweep, method_settings
from concept_probe.bench.board.leaderboard import beats, leaderboard
from concept_probe.erasers import ERASERS, Difference, Esd, Leace, Receler, Safree, Sld, Uce
from concept_probe.erasers.unlearning.trainer import Unlearner
from concept_probe.registry import look_up
from concept_probe.report import board_to_html, board_to_json, board_to_markdown
from concept_probe.types import Leaderboard, Sampling

Named = TypeVar("Named", MethodSetting, AttackSetting)
ROWS = Path(__file__).parent / "rows" / "emoji_leaderboard.jsonl"
WORK = Path("runs/emoji_leaderboard")
ALL = ("all",)
CONCEPTS = ("camel", "guitar", "pizza", "umbrella", "contrast")
COMPARED = (
    "ablate_features", "ablate_vectors", "uce", "uce (chosen)", "rece", "speed", "mace", "emcid", "esd", "esd (anchor)",
    "concept_ablation", "spm", "adv_unlearn", "few_shot", "adversarial_preservation", "receler", "negative_prompt",
    "blocklist", "sld (maximum)", "safree (suffix)", "cgce",
)  # fmt: skip
"""Erasers that are run unless others are named."""
MET = (
    "paraphrases", "implicit_prompts", "embedding_inversion", "visual_context", "latent_inversion", "relearning",
    "relearning (text encoder)", "merging", "unablation", "quantisation",
)  # fmt: skip
"""Attacks that are run unless others are named."""
TEXTS = ("memit", "needle", "rocr", "pisces", "crisp")
"""Erasers of language models that are no unlearners by gradients."""
VARIANTS = (
    MethodSetting("leace (baked)", Leace(how="bake")),
    MethodSetting("difference (baked)", Difference(how="bake")),
    MethodSetting(
        "uce (chosen)",
        Uce(sources=("target",)),
        "chosen settings",
        others=(Uce(sources=("target",), beta=3.0), Uce(sources=("target",), policy="all"), Uce(), Uce(policy="all")),
    ),
    MethodSetting("esd (anchor)", Esd(base="anchor")),
    MethodSetting("receler (anchor)", Receler(base="anchor")),
    MethodSetting("safree (suffix)", Safree(alpha=0.0, tokens="suffix")),
    MethodSetting("sld (maximum)", Sld(scale=5000.0, threshold=1.0, warmup=0.0)),
)
"""Published methods at a second setting, those that benchmarks/emoji_erasure.py has too."""
PARTS = (
    AttackSetting("relearning (text encoder)", "relearning", {"part": "text_encoder", "rate": 0.02}),
    AttackSetting("relearning (both)", "relearning", {"part": "both", "rate": 0.02}),
    AttackSetting("embedding_inversion (3 tokens)", "embedding_inversion", {"tokens": 3}),
    AttackSetting("p4d (every 2)", "p4d", {"every": 2, "words": 4}),
)
"""Attacks of the registry at a second setting."""


def grid(
    concepts: Sequence[str], seeds: Sequence[int], erasers: Sequence[str] = ALL, attacks: Sequence[str] = ALL
) -> Grid:
    """The erasers for pictures and attacks of these names. Raises UnknownName."""
    names = [name for name, made in ERASERS.items() if name not in TEXTS and not issubclass(made, Unlearner)]
    runners = (*method_settings([*names[:2], "ablate_vectors (cross-attention)", *names[2:]]), *VARIANTS)
    attacks = (*(AttackSetting(name, name) for name in ATTACKS), *PARTS)
    found = tuple(cp.concept(name) for name in concepts)
    settings = Settings(sampling=Sampling(steps=6))
    return Grid(found, named(runners, erasers), named(attacks, attacks), tuple(seeds), settings, twin=True)


def named(things: tuple[Named, ...], names: Sequence[str]) -> tuple[Named, ...]:
    """Those of these names, or all. Raises UnknownName."""
    known = {thing.name: thing for thing in things}
    wanted = known if tuple(names) == ALL else names
    return tuple(look_up(known, name, "row or column", "the names in docs/leaderboard.md") for name in wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", nargs="*", default=list(CONCEPTS), choices=CONCEPTS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--erasers", nargs="+", default=list(COMPARED), help="names of the table's rows, or all")
    parser.add_argument("--attacks", nargs="+", default=list(MET), help="names of the table's columns, or all")
    parser.add_argument("--rows", type=Path, default=ROWS, help="where finished rows are kept")
    parser.add_argument("--work", type=Path, default=WORK, help="where fits are kept")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--summary", action="store_true", help="print the table of the stored rows, run nothing")
    parser.add_argument("--output", type=Path, help="folder for leaderboard.html, .md and .json")
    parser.add_argument("--retry", action="store_true", help="measure failed cells again")
    options = parser.parse_args()
    if options.summary:
        summarise(options.rows, options.output)
        return
    torch.set_num_threads(options.threads)
    console = Console(stderr=True)
    asked = grid(options.concepts, options.seeds, options.erasers, options.attacks)
    sweep = Sweep(asked, cp.load("emoji"), options.work, Store(options.rows), cp.load("emoji-untaught"))
    for row in sweep.run(retry=options.retry):
        said = row.error if row.status == "failed" else f"{row.seconds:.1f} s"
        console.print(row.seed, row.concept, row.eraser, row.attack, said, highlight=False, markup=False)
    summarise(options.rows, options.output)


def summarise(path: Path, output: Path | None) -> None:
    """Print the table of the stored rows, and one line of JSON; write the leaderboard where a folder is given."""
    rows = list(Store(path).rows().values())
    if not rows:
        raise SystemExit(f"{path} holds no rows yet: run without --summary first")
    ours = [e.name for e in grid(CONCEPTS, (0,)).methods if e.ours]
    board = leaderboard(rows, subject="emoji", ours=ours, provenance={"rows": str(path.name), "cells": str(len(rows))})
    if output is not None:
        write(output, board)
    print(board_to_markdown(board))
    print(json.dumps(figures(board, rows)))


def figures(board: Leaderboard, rows: list[Row]) -> dict:
    """What the table comes to: erasers and attacks are those compared on the same pairs.

    An eraser of this project is on the front if no published one beats it on both recovered and kept.
    """
    published = [s for s in board.standings if s.part == "published"]
    mine = [s for s in board.standings if s.part == "ours"]
    beaten = {s.name: [o.name for o in published if beats(o, s)] for s in mine}
    held = {(d.measure, d.first, d.second) for d in board.differences if d.adjusted < 0.05}
    able = [s.name for s in mine if s.recovered is not None]
    return {
        "erasers": sum(s.recovered is not None for s in (*published, *mine)),
        "attacks": len(board.compared),
        "concepts": len(board.concepts),
        "seeds": len(board.seeds),
        "pairs": board.pairs,
        "cells": sum(r.status == "done" for r in rows),
        "failed": sum(r.status == "failed" for r in rows),
        "ours_on_front": any(not beaten[name] for name in able),
        "ours_beaten_by": beaten,
        "front": list(board.front),
        "differences_held": len(held),
    }


def write(folder: Path, board: Leaderboard) -> None:
    """leaderboard.html, .md and .json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, render in (("html", board_to_html), ("md", board_to_markdown), ("json", board_to_json)):
        (folder / f"leaderboard.{name}").write_text(render(board), encoding="utf-8")


if __name__ == "__main__":
    main()
