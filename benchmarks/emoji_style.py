"""What stands in for a style: prompts that name none, the empty prompt, or another style.

    python benchmarks/emoji_style.py [--style contrast] [--count 24] [--erasers uce mace]

First, which style pictures have whose prompt names none, or is empty. Then each eraser with such prompts for anchors,
and with the concept's own, which name another style: the share of pictures of test prompts that no longer have the
style, and the share of pictures in other styles that still have theirs. ESD and its kin lead away from the empty prompt
unless (anchor) stands beside them. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections import Counter
from dataclasses import replace

from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe import detect
from concept_probe.bench.sweep.cell import only_named_label
from concept_probe.erasers import AdversarialPreservation, ConceptAblation, Esd, Mace, Rece, Receler, Spm, Uce
from concept_probe.evaluation.trials import judge_answers
from concept_probe.testbed.vocabulary import PLAIN, objects
from concept_probe.types import SPLITS, Prompt, Query, Sampling, Splits

ERASERS = {
    "uce": Uce(),
    "rece": Rece(),
    "mace": Mace(),
    "concept_ablation": ConceptAblation(),
    "spm": Spm(),
    **{e.name: e for e in (Esd(), Receler(), AdversarialPreservation())},
    **{f"{e.name} (anchor)": replace(e, base="anchor") for e in (Esd(), Receler(), AdversarialPreservation())},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--style", default="contrast")
    parser.add_argument("--count", type=int, default=24, help="pictures per cell")
    parser.add_argument("--erasers", nargs="*", default=list(ERASERS), choices=list(ERASERS))
    options = parser.parse_args()
    subject, concept = cp.load("emoji"), cp.concept(options.style)
    names = [o.name for o in objects()]
    shown = {s: list(dict.fromkeys(only_named_label(p, names) for p in concept.prompts("anchor", s))) for s in SPLITS}
    bare = Splits(*(tuple(Prompt(PLAIN[s][0].format(o=name), name) for name in shown[s] if name) for s in SPLITS))
    concepts = {"no style": replace(concept, anchor=bare), "another style": concept}
    looks, sampling = detect.judge_for(concept), Sampling(steps=6)

    def seen(prompts: tuple[Prompt, ...]) -> list[tuple[str, str | None]]:
        """What is seen in a picture of each prompt, and its label."""
        queries = [Query(prompts[i * len(prompts) // options.count % len(prompts)], i) for i in range(options.count)]
        trials = judge_answers(looks, subject.generate(queries, sampling), queries, options.style)
        return [(t.seen, t.query.prompt.label) for t in trials]

    unnamed, empty = (Counter(s for s, _ in seen(prompts)) for prompts in (bare.test, (Prompt(""),)))
    figures: dict = {"unnamed": dict(unnamed), "empty": dict(empty), "erasers": {}}
    table = Table(title=f"{options.style}: erased, and other styles kept")
    for head in ("eraser", "no style: erased", "kept", "another style: erased", "kept"):
        table.add_column(head, justify="right" if head != "eraser" else "left")
    for name in ("untouched", *options.erasers):
        cells: dict[str, tuple[float, float]] = {}
        for anchors, led in concepts.items():
            erasure = None if name == "untouched" else ERASERS[name](subject, led)
            with contextlib.nullcontext() if erasure is None else erasure.on(subject):
                own, others = (seen(concept.prompts(kind, "test")) for kind in ("target", "neighbours"))
            cells[anchors] = (
                sum(s != label for s, label in own) / len(own),
                sum(s == label for s, label in others) / len(others),
            )
        figures["erasers"][name] = cells
        table.add_row(name, *(f"{x:.2f}" for pair in cells.values() for x in pair))
    console = Console(width=100)
    for what, drawn in (("no style named", unnamed), ("empty prompt", empty)):
        console.print(f"{what}: {', '.join(f'{k} {v}' for k, v in drawn.most_common())} of {options.count}")
    console.print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
