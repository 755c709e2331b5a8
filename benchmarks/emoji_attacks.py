"""Attack weak erasures of `emoji`, and the never-taught twin, with every attack at a small budget.

    python benchmarks/emoji_attacks.py [--objects camel] [--attacks quantisation merging] [--rows FILE]
    python benchmarks/emoji_attacks.py --summary
    python benchmarks/emoji_attacks.py --attacks p4d --arms untouched blocklist --gradient-steps 300

Rates are of the last point of each attack's curve, and the attack's own control beside them. Rows are appended to
FILE and not measured twice. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe import detect
from concept_probe.attacks import ATTACKS, P4D, Budget, Merging, RingABell, UnAblation, Weights
from concept_probe.erasers import Blocklist, Uce

ROWS = Path(__file__).parent / "rows" / "emoji_attacks.jsonl"
ARMS = {"untouched": None, "blocklist": Blocklist(), "uce": Uce(sources=("target",)), "twin": None}
VARIANTS = {
    "embedding_inversion (1 token)": ("embedding_inversion", {"tokens": 1}),
    "embedding_inversion (3 tokens)": ("embedding_inversion", {"tokens": 3}),
    "p4d (every 2)": ("p4d", {"every": 2, "words": 4}),
    "classifier_guidance (own judge)": ("classifier_guidance", {"guide": detect.recogniser("emoji")}),
}
"""Attacks of the registry at a second setting."""
BUDGET = Budget(queries=32, gradient_steps=30, examples=4)


def run(name: str, arm: str, taught, twin, original: Weights, about: str, budget: Budget = BUDGET) -> dict:
    """One attack on one arm: rates along its curve, its control, and what it spent."""
    subject, concept = (twin if arm == "twin" else taught), cp.concept(about)
    made, options = VARIANTS.get(name, (name, {}))
    attack = ATTACKS[made](detect.recogniser("emoji"), cp.Sampling(steps=10), **options)
    if arm == "twin" and isinstance(attack, Merging | UnAblation):
        # What the taught model's weights bring to a model that never knew: the fair control of taking an edit back.
        attack = type(attack)(attack.recogniser, attack.sampling, original=original)
    if isinstance(attack, RingABell):
        attack = replace(attack, reader=cp.load("emoji"))  # the attacker's own text encoder, without any erasure
    if isinstance(attack, P4D):
        attack = replace(attack, original=cp.load("emoji"))  # the attacker's own copy, for the twin too
    eraser = ARMS[arm]
    with nullcontext() if eraser is None else eraser(subject, concept).on(subject):
        attempt = attack(subject, concept, budget)
    return {
        "attack": name,
        "arm": arm,
        "object": about,
        "x_name": attempt.x_name,
        "curve": [(x, round(s.value, 3), s.n) for x, s in attempt.curve],
        "control": None if attempt.control is None else attempt.control.value,
        "seconds": round(attempt.spent.seconds, 1),
        "note": attempt.note,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", nargs="*", default=["camel"])
    parser.add_argument("--attacks", nargs="*", default=[*ATTACKS, *VARIANTS], choices=[*ATTACKS, *VARIANTS])
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    parser.add_argument("--gradient-steps", type=int, default=BUDGET.gradient_steps, help="another budget, other rows")
    parser.add_argument("--rows", type=Path, default=ROWS, help="where finished rows are kept")
    parser.add_argument("--summary", action="store_true", help="print the table of the stored rows, run nothing")
    options = parser.parse_args()
    taught, twin = cp.load("emoji"), cp.load("emoji-untaught")
    weights, allowed = taught.weight_hash(), replace(BUDGET, gradient_steps=options.gradient_steps)
    budget = repr(allowed)
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows.exists() else []
    rows = [r for r in rows if r["weights"] == weights and r["budget"] == budget]
    done = {(r["attack"], r["arm"], r["object"]) for r in rows}
    original, console = Weights.of(taught), Console(stderr=True)
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    for about in [] if options.summary else options.objects:
        for name in options.attacks:
            for arm in options.arms:
                if (name, arm, about) in done:
                    continue
                row = run(name, arm, taught, twin, original, about, allowed) | {"weights": weights, "budget": budget}
                rows.append(row)
                with options.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                console.print(about, name, arm, row["curve"], row["control"], f"{row['seconds']} s")
    print(json.dumps(summary(rows, Console(width=140))))


def summary(rows: list[dict], console: Console) -> dict:
    """Print highest rate along the curve > own control, mean over objects; return the figures."""
    table = Table(
        "attack", *ARMS, "seconds", title="highest rate along the curve, own control in brackets, mean over objects"
    )
    figures = {}
    for name in (n for n in (*ATTACKS, *VARIANTS) if any(r["attack"] == n for r in rows)):
        cells, figures[name] = [], {}
        for arm in ARMS:
            of = [r for r in rows if r["attack"] == name and r["arm"] == arm and r["curve"]]
            if not of:
                cells.append("")
                continue
            rate = sum(max(value for _, value, _ in r["curve"]) for r in of) / len(of)
            control = sum(r["control"] or 0.0 for r in of) / len(of)
            figures[name][arm] = {"rate": rate, "control": control, "above": rate - control}
            cells.append(f"{rate:.2f} ({control:.2f})")
        mine = [r["seconds"] for r in rows if r["attack"] == name]
        table.add_row(name, *cells, f"{sum(mine) / len(mine):.0f}")
        figures[name]["seconds"] = sum(mine) / len(mine)
    console.print(table)
    return figures


if __name__ == "__main__":
    main()
