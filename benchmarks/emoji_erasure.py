"""Erase each of the 8 removed objects from `emoji` with every eraser, and count what is drawn.

    python benchmarks/emoji_erasure.py [--objects camel snake] [--rows FILE]
    python benchmarks/emoji_erasure.py --summary

With `--summary` the table of the rows that are stored beside this file is printed and nothing is run.
Every choice (features and strength, number of columns or directions) is made on the select split;
the table is of test sentences with paired seeds. Rows are appended to FILE and not measured twice.
Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe import detect
from concept_probe.erase import AblateVectors, Blocklist, Difference, Leace, Uce, choose, choose_features
from concept_probe.find import find_vectors
from concept_probe.learn import shipped_saes
from concept_probe.testbed.concepts import concept as named_concept
from concept_probe.testbed.vocabulary import REMOVED_OBJECTS
from concept_probe.types import Concept, Prompt, Query, Recogniser

ROWS = Path(__file__).parent / "rows" / "emoji_erasure.jsonl"
COLUMNS = (16, 32, 64, 96, 128, 192)
KINDS = ("target", "paraphrases", "implicit", "neighbours", "unrelated")


def ablate_features(subject, concept: Concept, looks: Recogniser):
    return choose_features(subject, concept, shipped_saes("emoji"), recogniser=looks).erasure


def ablate_columns(subject, concept: Concept, looks: Recogniser):
    found = find_vectors(subject, concept, recogniser=looks, role="mlp_value", counts=COLUMNS)
    return AblateVectors()(subject, concept, found) if found else None


def ablate_cross(subject, concept: Concept, looks: Recogniser):
    found = find_vectors(subject, concept, recogniser=looks, role=("cross_key_weight", "cross_value_weight"))
    return AblateVectors()(subject, concept, found) if found else None


def chosen(*erasers) -> Callable:
    """The best of several settings of one method, by the select split."""

    def make(subject, concept: Concept, looks: Recogniser):
        made = {str(i): eraser(subject, concept) for i, eraser in enumerate(erasers)}
        return choose(made, subject, concept, recogniser=looks).erasure

    return make


ERASERS: dict[str, Callable] = {
    "ablate_features": ablate_features,
    "ablate_vectors (columns of the text encoder)": ablate_columns,
    "ablate_vectors (cross-attention keys and values)": ablate_cross,
    "leace": lambda s, c, r: Leace(how="intervention")(s, c),
    "leace (baked)": lambda s, c, r: Leace(how="bake")(s, c),
    "difference": lambda s, c, r: Difference(how="intervention")(s, c),
    "difference (baked)": lambda s, c, r: Difference(how="bake")(s, c),
    "uce": chosen(Uce(sources=("target",)), Uce(sources=("target",), beta=0.3), Uce(sources=("target",), policy="all")),
    "uce (all names)": chosen(Uce(), Uce(beta=0.3)),
    "blocklist": lambda s, c, r: Blocklist()(s, c),
}


def asked(concept: Concept, kind: str, count: int) -> list[Query]:
    """`count` test prompts of a kind, evenly spread, each with a seed of its own."""
    prompts: Sequence[Prompt] = concept.prompts(kind, "test")  # pyright: ignore[reportArgumentType]
    places = [i * len(prompts) // count for i in range(count)] if count <= len(prompts) else range(len(prompts))
    return [Query(prompts[p], seed=5000 + i) for i, p in enumerate(places)]


def rates(subject, concept: Concept, looks: Recogniser, count: int) -> dict[str, float]:
    """Share of right pictures per kind of prompt."""
    queries = {kind: asked(concept, kind, count) for kind in KINDS}
    flat = [q for part in queries.values() for q in part]
    seen = iter(detect.trials(looks, subject.generate(flat), flat))
    return {kind: sum(next(seen).seen == q.prompt.label for q in part) / len(part) for kind, part in queries.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", nargs="*", default=list(REMOVED_OBJECTS))
    parser.add_argument("--erasers", nargs="*", default=list(ERASERS))
    parser.add_argument("--count", type=int, default=16, help="test pictures per kind of prompt")
    parser.add_argument("--rows", type=Path, default=ROWS, help="where finished rows are kept")
    parser.add_argument("--summary", action="store_true", help="print the table of the stored rows, run nothing")
    options = parser.parse_args()
    subject, looks, console = cp.load("emoji"), detect.recogniser("emoji"), Console(stderr=True)
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows.exists() else []
    weights = subject.weight_hash()
    if options.summary:
        options.objects = []
    rows = [r for r in rows if r["weights"] == weights and r["count"] == options.count]
    done = {(r["object"], r["eraser"]) for r in rows}
    for name in options.objects:
        concept = named_concept(name)
        todo = [e for e in options.erasers if (name, e) not in done]
        before = rates(subject, concept, looks, options.count) if todo else {}
        for eraser in todo:
            start = time.perf_counter()
            erasure = ERASERS[eraser](subject, concept, looks)
            seconds = time.perf_counter() - start
            if erasure is None:
                after = before
            else:
                with erasure.on(subject):
                    after = rates(subject, concept, looks, options.count)
            row = {
                "object": name,
                "eraser": eraser,
                "before": before,
                "after": after,
                "found": erasure is not None,
                "seconds": seconds,
                "weights": weights,
                "count": options.count,
                "how": "nothing causal found" if erasure is None else str(erasure.describe())[:2000],
            }
            rows.append(row)
            with options.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            console.print(name, eraser, {k: f"{before[k]:.2f}>{after[k]:.2f}" for k in KINDS}, f"{seconds:.0f} s")
    print(json.dumps(summary(rows, Console())))


def summary(rows: list[dict], console: Console) -> dict:
    """Print the table of means over objects; return the figures."""
    table = Table(
        "eraser",
        *KINDS,
        "objects at <= 0.2",
        "kept >= 0.9 too",
        title="share of right pictures, before > after, mean over objects",
    )
    figures = {}
    for eraser in dict.fromkeys(r["eraser"] for r in rows):
        of = [r for r in rows if r["eraser"] == eraser]
        mean = {when: {k: sum(r[when][k] for r in of) / len(of) for k in KINDS} for when in ("before", "after")}
        gone = [r for r in of if r["after"]["target"] <= 0.2]
        both = [r for r in gone if all(r["after"][k] >= 0.9 * r["before"][k] for k in ("neighbours", "unrelated"))]
        table.add_row(
            eraser,
            *(f"{mean['before'][k]:.2f} > {mean['after'][k]:.2f}" for k in KINDS),
            f"{len(gone)} of {len(of)}",
            f"{len(both)} of {len(of)}",
        )
        figures[eraser] = {
            "before": mean["before"]["target"],
            "after": mean["after"]["target"],
            "paraphrases": mean["after"]["paraphrases"],
            "implicit": mean["after"]["implicit"],
            "neighbours": mean["after"]["neighbours"] / max(mean["before"]["neighbours"], 1e-9),
            "unrelated": mean["after"]["unrelated"] / max(mean["before"]["unrelated"], 1e-9),
            "objects_erased_and_kept": len(both),
            "objects": len(of),
        }
    console.print(table)
    return figures


if __name__ == "__main__":
    main()
