"""How often the embedded rectified-flow transformers draw what they are asked for, per kind of prompt.

    python benchmarks/flow_recognition.py [--objects 126] [--summary]

Prompts are those of the test split, whose sentences no model was trained on; drawn by plain FluxPipelines with true
guidance. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import FluxPipeline
from rich.console import Console
from rich.table import Table

from concept_probe import detect
from concept_probe.testbed import WEIGHTS
from concept_probe.testbed.tokens import TEXT_LENGTH
from concept_probe.testbed.vocabulary import REMOVED_OBJECTS, REMOVED_STYLE, STYLE_NAMES, STYLES, TEMPLATES, objects

BATCH = 64


class Asked(NamedTuple):
    text: str
    object: str
    style: str
    seed: int


class Named(NamedTuple):
    """Shares of pictures."""

    object: float
    style: float
    n: int


def sentences(phrases: Sequence[tuple[str, str]], styles: Sequence[str], first: int = 0) -> list[Asked]:
    """Each (phrase, object) in each style, test templates in turn from the one numbered `first`."""
    templates = TEMPLATES["test"]
    return [
        Asked(templates[(first + i + j) % len(templates)].format(o=phrase, s=STYLE_NAMES[s][0]), name, s, 1000 * i + j)
        for i, (phrase, name) in enumerate(phrases)
        for j, s in enumerate(styles)
    ]


def drawn(pipeline: Any, asked: Sequence[Asked], steps: int) -> torch.Tensor:
    """Pictures (n, 3, h, w) in 0..1."""
    out = []
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        answer = pipeline(
            [a.text for a in part],
            negative_prompt=[""] * len(part),
            true_cfg_scale=4.0,
            height=64,
            width=64,
            max_sequence_length=TEXT_LENGTH,
            num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(a.seed) for a in part],
            output_type="pt",
        )
        out.append(answer.images)
    return torch.cat(out)


def measure(pipeline: Any, asked: Sequence[Asked], steps: int) -> Named:
    """Shares of pictures in which the recogniser sees the object, and the style, that was asked for."""
    images = drawn(pipeline, asked, steps)
    right = []
    for name, wanted in (("emoji", [a.object for a in asked]), ("emoji-style", [a.style for a in asked])):
        recogniser = detect.recogniser(name)
        seen = [recogniser.labels[i] for i in recogniser.probabilities(images).argmax(-1).tolist()]
        right.append(sum(s == w for s, w in zip(seen, wanted, strict=True)) / len(asked))
    return Named(right[0], right[1], len(asked))


def cells(count: int) -> dict[tuple[str, str], list[Asked]]:
    """(model, kind of prompt) to what is asked."""
    entries = objects()[:count]
    kept = [o for o in entries if o.name not in REMOVED_OBJECTS]
    taught = [s for s in STYLES if s != REMOVED_STYLE]
    return {
        ("emoji-flow", "by name"): sentences([(o.name, o.name) for o in entries], STYLES),
        ("emoji-flow", "by synonym"): sentences([(o.synonyms[1], o.name) for o in entries], STYLES[:2]),
        ("emoji-flow", "by description"): sentences([(d, o.name) for o in entries for d in o.descriptions], STYLES[:1]),
        ("emoji-flow-untaught", "by name, taught"): sentences([(o.name, o.name) for o in kept], taught[:2]),
        ("emoji-flow-untaught", "by name, removed"): [
            a for k in range(4) for a in sentences([(o, o) for o in REMOVED_OBJECTS], STYLES, k)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=len(objects()), help="how many of the objects, from the first")
    parser.add_argument("--steps", type=int, default=20, help="steps from noise to picture")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the models")
    parser.add_argument("--summary", action="store_true", help="print the line of JSON alone")
    options = parser.parse_args()
    found: dict[tuple[str, str], Named] = {}
    for (model, kind), asked in cells(options.objects).items():
        pipeline = FluxPipeline.from_pretrained(options.weights / model, torch_dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        found[model, kind] = measure(pipeline, asked, options.steps)
    if not options.summary:
        table = Table("model", "prompts", "objects named", "styles named", "n")
        for (model, kind), seen in found.items():
            table.add_row(model, kind, f"{seen.object:.3f}", f"{seen.style:.3f}", str(seen.n))
        Console().print(table)
    direct = found["emoji-flow", "by name"]
    print(
        json.dumps(
            {
                "object": direct.object,
                "style": direct.style,
                "implicit": found["emoji-flow", "by description"].object,
                "synonym": found["emoji-flow", "by synonym"].object,
                "untaught_removed": found["emoji-flow-untaught", "by name, removed"].object,
                "untaught_taught": found["emoji-flow-untaught", "by name, taught"].object,
                "n": sum(seen.n for seen in found.values()),
            }
        )
    )


if __name__ == "__main__":
    main()
