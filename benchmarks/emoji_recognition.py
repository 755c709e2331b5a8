"""How often the embedded models draw what they are asked for, per kind of prompt and per style.

    python benchmarks/emoji_recognition.py [--objects 126]

Prompts are those of the test split, whose sentences no model was trained on. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe import detect
from concept_probe.evaluation.trials import judge_answers
from concept_probe.testbed.vocabulary import REMOVED_OBJECTS, STYLE_NAMES, STYLES, TEMPLATES, objects
from concept_probe.types import Prompt, Query


def queries(
    phrases: Sequence[tuple[str, str]], styles: Sequence[str], templates: Sequence[str]
) -> list[tuple[Query, str]]:
    """Each (phrase, object) in each style, templates in turn; with the style that is asked for."""
    out = []
    for i, (phrase, label) in enumerate(phrases):
        for j, style in enumerate(styles):
            text = templates[(i + j) % len(templates)].format(o=phrase, s=STYLE_NAMES[style][0])
            out.append((Query(Prompt(text, phrase, label), seed=1000 * i + j), style))
    return out


def measure(subject, asked: list[tuple[Query, str]]) -> tuple[float, float, dict[str, list[bool]]]:
    """Share of pictures whose object, and whose style, is the one asked for; and the hits per object."""
    images = subject.generate([q for q, _ in asked])
    seen = [t.seen for t in judge_answers(detect.recogniser("emoji"), images, [q for q, _ in asked])]
    styles = [t.seen for t in judge_answers(detect.recogniser("emoji-style"), images, [q for q, _ in asked])]
    hits: dict[str, list[bool]] = {}
    for (query, _), name in zip(asked, seen, strict=True):
        hits.setdefault(query.prompt.label or "", []).append(name == query.prompt.label)
    right = sum(map(sum, hits.values())) / len(asked)
    return right, sum(s == style for s, (_, style) in zip(styles, asked, strict=True)) / len(asked), hits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=len(objects()), help="how many of the objects, from the first")
    parser.add_argument("--templates", type=int, default=1, help="how many test sentences per object and style")
    count = parser.parse_args()
    entries = objects()[: count.objects]
    emoji, untaught = cp.load("emoji"), cp.load("emoji-untaught")
    templates = TEMPLATES["test"]
    direct = [
        q
        for k in range(count.templates)
        for q in queries([(o.name, o.name) for o in entries], STYLES, templates[k:] + templates[:k])
    ]
    kinds = {
        "by name": direct,
        "by synonym": queries([(o.synonyms[1], o.name) for o in entries], STYLES[:2], templates),
        "by description": queries([(d, o.name) for o in entries for d in o.descriptions], STYLES[:1], templates),
    }
    table = Table("model", "prompts", "objects named", "styles named", "n")
    results, misses = {}, {}
    for kind, asked in kinds.items():
        right, style, hits = measure(emoji, asked)
        results[kind] = (right, style, len(asked))
        misses[kind] = [f"{name} {sum(h)}/{len(h)}" for name, h in hits.items() if not all(h)]
        table.add_row("emoji", kind, f"{right:.3f}", f"{style:.3f}", str(len(asked)))
    taught_styles = [s for s in STYLES if s != "contrast"]
    kept = queries([(o.name, o.name) for o in entries if o.name not in REMOVED_OBJECTS], taught_styles[:2], templates)
    right, style, _ = measure(untaught, kept)
    table.add_row("emoji-untaught", "by name, taught", f"{right:.3f}", f"{style:.3f}", str(len(kept)))
    gone = [
        q for k in range(4) for q in queries([(o, o) for o in REMOVED_OBJECTS], STYLES, templates[k:] + templates[:k])
    ]
    removed, _, _ = measure(untaught, gone)
    table.add_row("emoji-untaught", "by name, removed", f"{removed:.3f}", "", str(len(gone)))
    console = Console()
    console.print(table)
    for kind, missed in misses.items():
        console.print(f"not always named {kind}: {', '.join(missed) or 'none'}")
    print(
        json.dumps(
            {
                "object": results["by name"][0],
                "style": results["by name"][1],
                "implicit": results["by description"][0],
                "synonym": results["by synonym"][0],
                "untaught_removed": removed,
                "untaught_taught": right,
                "n": sum(r[2] for r in results.values()) + len(kept) + len(gone),
            }
        )
    )


if __name__ == "__main__":
    main()
