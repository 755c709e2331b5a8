"""Erase each of the 8 removed objects from `emoji` with every eraser, and count what is drawn.

    python benchmarks/emoji_erasure.py [--objects camel snake] [--rows FILE]
    python benchmarks/emoji_erasure.py --summary

With `--summary` the tables of the rows that are stored beside this file are printed and nothing is run.
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
from concept_probe.erasers import (
    AdversarialPreservation,
    AdvUnlearn,
    Ant,
    Blocklist,
    Cgce,
    ConceptAblation,
    Difference,
    DoCo,
    Emcid,
    Esd,
    FewShot,
    Irece,
    Itd,
    Leace,
    Mace,
    NegativePrompt,
    PatchReplacement,
    Rece,
    Receler,
    Saeuron,
    Safree,
    Sld,
    Slider,
    Speed,
    Spm,
    Steer,
    Surgical,
    Uce,
    Unguide,
    choose,
    choose_features,
    choose_vectors,
)
from concept_probe.find import find_features
from concept_probe.learn import over_text, shipped_saes
from concept_probe.testbed.concepts import concept as named_concept
from concept_probe.testbed.vocabulary import REMOVED_OBJECTS
from concept_probe.types import Concept, Prompt, Query, Recogniser

ROWS = Path(__file__).parent / "rows" / "emoji_erasure.jsonl"
KINDS = ("target", "paraphrases", "implicit", "neighbours", "unrelated")


def ablate_features(subject, concept: Concept, looks: Recogniser):
    saes = over_text(shipped_saes("emoji"))
    return choose_features(subject, concept, saes, recogniser=looks).erasure


def autoencoders(subject, concept: Concept):
    """The shipped autoencoders, each with its strongest feature of the concept."""
    return find_features(list(shipped_saes("emoji")), subject, concept, count=1, limit=4)


def ablate_columns(subject, concept: Concept, looks: Recogniser):
    choice = choose_vectors(subject, concept, recogniser=looks, role="mlp_value")
    return choice and choice.erasure


def ablate_cross(subject, concept: Concept, looks: Recogniser):
    choice = choose_vectors(subject, concept, recogniser=looks, role=("cross_key_weight", "cross_value_weight"))
    return choice and choice.erasure


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
    "uce": chosen(
        Uce(sources=("target",)),
        Uce(sources=("target",), beta=3.0),
        Uce(sources=("target",), policy="all"),
    ),
    "uce (all names)": chosen(Uce(), Uce(beta=3.0), Uce(policy="all")),
    "blocklist": lambda s, c, r: Blocklist()(s, c),
    "rece": lambda s, c, r: Rece(sources=("target",))(s, c),
    "speed": lambda s, c, r: Speed(sources=("target",))(s, c),
    "mace": lambda s, c, r: Mace()(s, c),
    "emcid": lambda s, c, r: Emcid()(s, c),
    "negative_prompt": lambda s, c, r: NegativePrompt()(s, c),
    "sld": lambda s, c, r: Sld()(s, c),
    "sld (maximum)": lambda s, c, r: Sld(scale=5000.0, threshold=1.0, warmup=0.0)(s, c),
    "steer": lambda s, c, r: Steer()(s, c, autoencoders(s, c)),
    "itd": lambda s, c, r: Itd()(s, c, autoencoders(s, c)),
    "saeuron": lambda s, c, r: Saeuron()(s, c, autoencoders(s, c)),
    "safree": lambda s, c, r: Safree()(s, c),
    "safree (suffix)": lambda s, c, r: Safree(alpha=0.0, tokens="suffix")(s, c),
    "patch_replacement": lambda s, c, r: PatchReplacement()(s, c, autoencoders(s, c)),
    "cgce": lambda s, c, r: Cgce()(s, c),
    "irece": lambda s, c, r: Irece()(s, c),
    "esd": lambda s, c, r: Esd()(s, c),
    "concept_ablation": lambda s, c, r: ConceptAblation()(s, c),
    "spm": lambda s, c, r: Spm()(s, c),
    "slider": lambda s, c, r: Slider()(s, c),
    "adv_unlearn": lambda s, c, r: AdvUnlearn()(s, c),
    "receler": lambda s, c, r: Receler()(s, c),
    "few_shot": lambda s, c, r: FewShot()(s, c),
    "adversarial_preservation": lambda s, c, r: AdversarialPreservation()(s, c),
    "surgical": lambda s, c, r: Surgical()(s, c),
    "unguide": lambda s, c, r: Unguide()(s, c),
    "doco": lambda s, c, r: DoCo()(s, c),
    "ant": lambda s, c, r: Ant()(s, c),
}


def asked(concept: Concept, kind: str, count: int) -> list[Query]:
    """`count` queries of a kind: its test prompts evenly spread, or repeated, each with a seed of its own."""
    prompts: Sequence[Prompt] = concept.prompts(kind, "test")  # pyright: ignore[reportArgumentType]
    places = [i * len(prompts) // count if count <= len(prompts) else i % len(prompts) for i in range(count)]
    return [Query(prompts[place], seed=5000 + i) for i, place in enumerate(places)]


def rates(subject, concept: Concept, looks: Recogniser, count: int) -> dict[str, float]:
    """Share of right pictures per kind of prompt."""
    queries = {kind: asked(concept, kind, count) for kind in KINDS}
    flat = [q for part in queries.values() for q in part]
    seen = iter(detect.trials(looks, subject.generate(flat), flat))
    return {kind: sum(next(seen).seen == q.prompt.label for q in part) / len(part) for kind, part in queries.items()}


UNTOLD = ("method", "subject", "prompts_seen", "options", "guides", "kept")
"""What `made_by` holds besides settings and measures: the same for all rows of an eraser, or long."""


def settings(erasure) -> dict:
    """The options that were chosen and what was measured on the way; of every list, how long it is."""
    made = erasure.describe()["made_by"]
    told = {**made["options"], **{k: v for k, v in made.items() if k not in UNTOLD}}
    if "strength" in erasure.describe():
        told["strength"] = erasure.describe()["strength"]
    told = {k: _sizes(v) for k, v in told.items()}
    return {k: v for k, v in told.items() if v not in (None, {}, 0)}


def _sizes(value):
    """Numbers and short names as they are, lists of numbers by their length; one value where all sites agree."""
    if isinstance(value, dict):
        sizes = {k: _sizes(v) for k, v in value.items()}
        same = len(sizes) > 1 and len(set(map(str, sizes.values()))) == 1
        return {f"{len(sizes)} sites": next(iter(sizes.values()))} if same else sizes
    if isinstance(value, list | tuple) and value and not isinstance(value[0], str):
        return len(value)
    return value


def per_object(rows: list[dict], console: Console) -> None:
    """Print every row: one eraser and one object each."""
    table = Table("eraser", "object", *KINDS, "seconds", title="share of right pictures, before > after")
    for row in sorted(rows, key=lambda r: (list(ERASERS).index(r["eraser"]), r["object"])):
        cells = (f"{row['before'][k]:.2f} > {row['after'][k]:.2f}" for k in KINDS)
        table.add_row(row["eraser"], row["object"], *cells, f"{row['seconds']:.0f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", nargs="*", default=list(REMOVED_OBJECTS))
    parser.add_argument("--erasers", nargs="*", default=list(ERASERS))
    parser.add_argument("--count", type=int, default=32, help="test pictures per kind of prompt")
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
        if not todo:
            continue
        known = [r["before"] for r in rows if r["object"] == name]
        before = known[0] if known else rates(subject, concept, looks, options.count)
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
                "how": "nothing causal found" if erasure is None else settings(erasure),
            }
            rows.append(row)
            with options.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            console.print(name, eraser, {k: f"{before[k]:.2f}>{after[k]:.2f}" for k in KINDS}, f"{seconds:.0f} s")
    out = Console(width=160)
    per_object(rows, out)
    print(json.dumps(summary(rows, out)))


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
