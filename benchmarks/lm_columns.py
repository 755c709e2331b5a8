"""Do answers fall without the columns that they owe most to, and not without random ones?

    python benchmarks/lm_columns.py [--concepts Japan] [--rows FILE]
    python benchmarks/lm_columns.py --summary

Columns of SmolLM2's feed-forwards are ranked on the fit split by what log P(answers) owes to them; how many are zeroed is
chosen on the select split; the table is of the test split, beside random columns of the same layers and like load. Rows
are appended to FILE and not measured twice. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from lm_settings import REAL
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

import concept_probe as cp
from concept_probe.bench.board.unlearning import mean_over_facts
from concept_probe.evaluation.rates import per_fact
from concept_probe.families import CausalLMSubject
from concept_probe.find import log_answers, rank_by_effect, weigh
from concept_probe.find.language.knowledge import weighable
from concept_probe.find.vectors.columns import zero_columns
from concept_probe.types import FORGET_KINDS, OTHER_KINDS, Concept, Prompt

ROWS = Path(__file__).parent / "rows" / "lm_columns.jsonl"
ZEROED = (32, 128, 512)
"""How many columns are tried on the select split."""
TIMES = 5
"""How many times as far as without random columns answers have to fall without the found ones."""


@torch.no_grad()
def gap(subject: CausalLMSubject, concept: Concept) -> dict:
    """How far answers fall without the found columns and without random ones, per prompt of the test split, in nats.

    Columns are ranked on the fit split. How many are zeroed is chosen on the select split: the count of `ZEROED` with
    the largest fall less `TIMES` that without random ones, which is what the test split then has to show again.
    """
    ranked, generator = rank_by_effect(subject, concept, most=36), torch.Generator().manual_seed(0)

    def without(chosen: Sequence[int], prompts: Sequence[Prompt]) -> Tensor:
        with zero_columns(subject, ranked.by_layer(chosen)):
            return log_answers(subject, prompts)

    def random(count: int, prompts: Sequence[Prompt], draws: int) -> Tensor:
        drawn = [ranked.matched(range(count), generator) for _ in range(draws)]
        return torch.stack([without(each, prompts) for each in drawn]).mean(0)

    asked = weighable(concept, FORGET_KINDS, "select", 14)
    before, choices = log_answers(subject, asked), {}
    for count in ZEROED:
        falls = [before - x for x in (without(range(count), asked), random(count, asked, 2))]
        choices[count] = [float(per_fact(x, asked).mean()) for x in falls]
    count = max(choices, key=lambda c: choices[c][0] - TIMES * choices[c][1])
    asked, others = (weighable(concept, k, "test", m) for k, m in ((FORGET_KINDS, 24), (OTHER_KINDS, 12)))
    held = weigh(subject, asked)
    with zero_columns(subject, ranked.by_layer(range(count))):
        after, beside = weigh(subject, asked), log_answers(subject, others)
    return {
        "count": count,
        "select": {str(c): each for c, each in choices.items()},
        "facts": [p.fact or p.text for p in asked],
        "found": (held.right - after.right).tolist(),
        "random": (held.right - random(count, asked, 3)).tolist(),
        "odds": (held.odds - after.odds).tolist(),
        "others": (log_answers(subject, others) - beside).tolist(),
    }


def causal_gap(row: dict) -> dict:
    """The fall without found columns and without random ones, with intervals over facts, and whether they are apart.

    `odds` is the fall of the odds against wrong answers, `others` the mean fall of other prompts' answers.
    """
    groups: dict[str, list[int]] = {}
    for i, fact in enumerate(row["gap"]["facts"]):
        groups.setdefault(fact, []).append(i)
    found, random, odds = (
        mean_over_facts([sum(row["gap"][k][i] for i in g) / len(g) for g in groups.values()], row["concept"])
        for k in ("found", "random", "odds")
    )
    others = row["gap"]["others"]
    apart = found[1] > random[2] and found[0] > 0
    return {
        "found": found, "random": random, "odds": odds, "others": sum(others) / len(others),
        "gap": apart and found[0] >= TIMES * random[0],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", nargs="*", default=list(REAL), choices=REAL)
    parser.add_argument("--rows", type=Path, default=ROWS, help="where finished rows are kept")
    parser.add_argument("--summary", action="store_true", help="print the table of the stored rows, run nothing")
    options = parser.parse_args()
    file = options.rows
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    done = {row["concept"] for row in rows}
    for name in [] if options.summary else [n for n in options.concepts if n not in done]:
        start, subject = time.perf_counter(), cp.load("smollm2")
        if not isinstance(subject, CausalLMSubject):
            raise TypeError(f"smollm2 loaded as {type(subject).__name__}")
        row = {"concept": name, "gap": gap(subject, cp.concept(name, "smollm2"))}
        rows.append(row | {"seconds": round(time.perf_counter() - start, 1)})
        with file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(rows[-1], ensure_ascii=False) + "\n")
    print(json.dumps(summary(rows)))


def summary(rows: Sequence[dict]) -> dict:
    """Print the table; return for how many concepts found columns matter more than random ones."""
    heads = ("concept", "columns", "found (nats)", "random (nats)", "odds, found", "other prompts", "gap")
    table = Table(*heads, box=box.MARKDOWN)
    rows = sorted(rows, key=lambda row: row["concept"])
    gaps = {row["concept"]: causal_gap(row) for row in rows}
    for row in rows:
        one = gaps[row["concept"]]
        spans = [f"{m:z.2f} [{a:z.2f}, {b:z.2f}]" for m, a, b in (one["found"], one["random"], one["odds"])]
        others = f"{one['others']:z.2f}"
        table.add_row(row["concept"], str(row["gap"]["count"]), *spans, others, str(one["gap"]))
    console = Console(width=260)
    console.print("fall of log P(right answer) without the found columns and without random ones, test split")
    console.print(table)
    return {"concepts_with_causal_gap": sum(g["gap"] for g in gaps.values()), "concepts": len(gaps)}


if __name__ == "__main__":
    main()
