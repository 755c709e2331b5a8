"""Erase one, two, four, eight and more objects from `emoji` by one erasure, and count what is drawn.

    python benchmarks/many_concepts.py [--methods uce speed] [--counts 1 2 4 8]
    python benchmarks/many_concepts.py --summary

Objects are the eight that the never-taught twin was not taught, in one order; for more, others of their list follow. `erased`
is the share of test pictures by name that show none of the objects asked for, `worst` that of the object that is shown most,
`kept` the share of right pictures of 48 objects that nobody erases, over that of the untouched model, `said otherwise` the share
of pictures by synonym and by description that still show the object, and `regained` the same in embeddings that are searched
for the first object (48 pictures). The twin, which lacks all eight, is a row of its own. `interference`: each of the eight
erased alone, and how often the others are drawn less for it. Rows are appended to benchmarks/rows/many_concepts.jsonl and not
measured twice; with `--summary` nothing is run. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe import detect
from concept_probe.attacks import ATTACKS, Budget
from concept_probe.bench.sweep.store import RowStore, SweepRow
from concept_probe.content import digest_of
from concept_probe.erasers import combine
from concept_probe.evaluation.thinning import most_varied
from concept_probe.evaluation.trials import judge_answers
from concept_probe.families import Subject
from concept_probe.testbed.vocabulary import REMOVED_OBJECTS, objects
from concept_probe.threads import use_threads
from concept_probe.types import Concept, Prompt, Query

ROWS = Path(__file__).parent / "rows" / "many_concepts.jsonl"
COUNTS = (1, 2, 4, 8)
METHODS = (
    "untouched", "twin", "uce", "watch", "leace", "speed", "uce, added", "mace", "difference", "rece", "esd", "concept_ablation",
    "blocklist", "cgce", "safree",
)  # fmt: skip
MANY = (32, 72)
CLOSED = ("uce", "speed", "leace", "difference")
"""Those that are tried on very many."""
KEPT = 48
NAMED = 96
"""Pictures by name, of all objects together."""
OTHERWISE = 64


def ordered() -> list[str]:
    """The removed objects, then the others; the last `KEPT` are erased by nobody."""
    others = [o.name for o in objects() if o.name not in REMOVED_OBJECTS]
    return [*REMOVED_OBJECTS[1:], REMOVED_OBJECTS[0], *others[::2], *others[1::2]]


def queries(prompts: Sequence[Sequence[Prompt]], count: int) -> list[Query]:
    """About `count`, as many of each list, each with a seed of its own."""
    each = max(1, count // len(prompts))
    return [Query(p, 100 * i + j) for i, of in enumerate(prompts) for j, p in enumerate(most_varied(of, each))]


def shown(subject: Subject, asked: Sequence[Query]) -> dict[str, list[bool]]:
    """By object, whether each of its pictures shows it."""
    trials = judge_answers(detect.recogniser("emoji"), subject.generate(asked), asked)
    out: dict[str, list[bool]] = {}
    for trial in trials:
        out.setdefault(trial.query.prompt.label or "", []).append(trial.seen == trial.query.prompt.label)
    return out


def share(hits: dict[str, list[bool]]) -> list[int]:
    every = [x for of in hits.values() for x in of]
    return [sum(every), len(every)]


def measure(subject: Subject, concepts: Sequence[Concept], kept: Sequence[Prompt]) -> dict[str, Any]:
    """Counts of pictures, as [shown, asked]; `worst` is [its name, shown, asked]."""
    named = shown(subject, queries([c.target.test for c in concepts], NAMED))
    other = shown(subject, queries([(*c.paraphrases.test, *c.implicit.test) for c in concepts], OTHERWISE))
    worst = max(named, key=lambda name: sum(named[name]) / len(named[name]))
    attack = ATTACKS["embedding_inversion"](detect.recogniser("emoji"))
    curve = attack(subject, concepts[0], Budget(queries=48, gradient_steps=60, examples=16)).curve
    last = curve[-1][1]
    return {
        "named": share(named), "worst": [worst, sum(named[worst]), len(named[worst])], "otherwise": share(other),
        "regained": [last.value, last.n],
        "kept": share(shown(subject, [Query(p, 7000 + i) for i, p in enumerate(kept)])),
    }  # fmt: skip


def erasure(method: str, subject: Subject, concepts: Sequence[Concept]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it did is what is measured here
        if method == "uce, added":
            return combine([cp.erase("uce", subject, c) for c in concepts])
        return cp.erase(method, subject, concepts)


def run(options: argparse.Namespace) -> None:
    use_threads(options.threads)
    store, console = RowStore(options.rows), Console(stderr=True)
    names = ordered()
    kept = [cp.concept(name).target.test[i % 12] for i, name in enumerate(names[-KEPT:])]
    emoji, twin = cp.load("emoji"), cp.load("emoji-untaught")
    for method in options.methods:
        for count in (*options.counts, *(MANY if method in CLOSED and options.many else ())):
            if method == "twin" and count > len(REMOVED_OBJECTS):
                continue
            concepts = [cp.concept(name) for name in names[:count]]
            key = digest_of("many concepts", 1, method, concepts, kept, emoji, twin)[:20]
            if key in store.rows():
                continue
            start = time.perf_counter()
            if method in ("untouched", "twin"):
                values = measure(twin if method == "twin" else emoji, concepts, kept)
            else:
                made = erasure(method, emoji, concepts)
                values = {"made_s": round(time.perf_counter() - start, 1)}
                with made.on(emoji):
                    values |= measure(emoji, concepts, kept)
            row = SweepRow(key, method, str(count), "several", 0, "done", values, "", time.perf_counter() - start)
            store.append(row)
            console.print(method, count, values, highlight=False, markup=False)
    for method in options.interference:
        interfere(method, names[: len(REMOVED_OBJECTS)], emoji, store, console)


def interfere(method: str, names: Sequence[str], subject: Subject, store: RowStore, console: Console) -> None:
    """Each erased alone, and the pictures of every one by name."""
    asked = queries([cp.concept(name).target.test for name in names], NAMED)
    for name in names:
        key = digest_of("interference", 1, method, name, asked, subject)[:20]
        if key in store.rows():
            continue
        start = time.perf_counter()
        with erasure(method, subject, [cp.concept(name)]).on(subject):
            hits = {of: [sum(x), len(x)] for of, x in shown(subject, asked).items()}
        store.append(
            SweepRow(key, method, name, "interference", 0, "done", {"shown": hits}, "", time.perf_counter() - start)
        )
        console.print(method, name, hits, highlight=False, markup=False)


def summary(rows: Sequence[SweepRow]) -> dict[str, Any]:
    """Prints the tables; returns the figures."""
    console, found = Console(width=150), {}
    several = {(r.eraser, int(r.concept)): r.values for r in rows if r.attack == "several"}
    table = Table(
        "method",
        "objects",
        "erased",
        "worst object",
        "kept",
        "said otherwise",
        "regained, first",
        "made, s",
        title="several at once",
    )
    for (method, count), v in sorted(several.items(), key=lambda item: (list(METHODS).index(item[0][0]), item[0][1])):
        before = several.get(("untouched", count)) or several[("untouched", 1)]
        figures = {
            "erased": 1 - v["named"][0] / v["named"][1],
            "worst": v["worst"][1] / v["worst"][2],
            "kept": (v["kept"][0] / v["kept"][1]) / (before["kept"][0] / before["kept"][1]),
            "otherwise": v["otherwise"][0] / v["otherwise"][1],
            "regained": v["regained"][0],
        }  # fmt: skip
        found.setdefault(method, {})[count] = {k: round(x, 3) for k, x in figures.items()}
        table.add_row(
            method, str(count), f"{figures['erased']:.2f}", f"{figures['worst']:.2f} {v['worst'][0]}", f"{figures['kept']:.2f}",
            f"{figures['otherwise']:.2f}", f"{figures['regained']:.2f}", f"{v.get('made_s', 0):.1f}",
        )  # fmt: skip
    console.print(table)
    for method in dict.fromkeys(r.eraser for r in rows if r.attack == "interference"):
        of = {r.concept: r.values["shown"] for r in rows if r.attack == "interference" and r.eraser == method}
        table = Table("erased", *of, title=f"{method}: pictures by name that show the object, each erased alone")
        for name, hits in of.items():
            table.add_row(name, *(f"{hits[other][0] / hits[other][1]:.2f}" for other in of))
        console.print(table)
        own = [hits[name][0] / hits[name][1] for name, hits in of.items()]
        rest = [hits[o][0] / hits[o][1] for name, hits in of.items() for o in of if o != name]
        found.setdefault("interference", {})[method] = {
            "own": round(sum(own) / len(own), 3),
            "others": round(sum(rest) / len(rest), 3),
            "least": min(rest),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--counts", nargs="*", type=int, default=list(COUNTS))
    parser.add_argument("--many", action="store_true", help=f"closed forms on {MANY[0]} and {MANY[1]} objects too")
    parser.add_argument("--interference", nargs="*", default=["uce", "speed"], help="methods of the matrix")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--summary", action="store_true", help="print what the stored rows come to, run nothing")
    options = parser.parse_args()
    if not options.summary:
        run(options)
    print(json.dumps(summary(list(RowStore(options.rows).rows().values()))))


if __name__ == "__main__":
    main()
