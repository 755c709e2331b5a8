"""What matters when an object is ablated in `emoji`: one thing is changed at a time, and pictures are counted.

    python benchmarks/emoji_ablation.py [camel]

Features of the shipped autoencoders: site, contrast formula, number, strength, error term, kinds of token. Concept
vectors: place, ranking, number, strength. Pictures of the select split, 48 of the object (name, synonym and
description in equal parts) and 48 of others, of a third of the usual denoising steps. `left` is detection on the worst of
the object's lists, `kept` recognition of neighbours or unrelated objects, whichever lose more, as a share
of the untouched model's. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe import detect
from concept_probe.erasers import AblateFeatures, AblateVectors, Edit, Intervention
from concept_probe.erasers.select.choose import PanelJudge
from concept_probe.erasers.select.features import strongest_features
from concept_probe.evaluation.panel import panel
from concept_probe.find import RowQuery, find_features, vector_candidates
from concept_probe.learn import over_text, shipped_saes
from concept_probe.types import Sampling

BASE = AblateFeatures(strength=2.0)
COUNT = 16
CROSS = ("cross_key_weight", "cross_value_weight")


def features(subject, concept) -> Iterator[tuple[str, Intervention]]:
    """The base (16 features by margin, strength 2, error kept, all tokens), then one change each."""
    (text,) = over_text(shipped_saes("emoji"))
    found = {f: find_features(text, subject, concept, count=64, formula=f) for f in ("margin", "share")}
    yield "base", BASE(subject, concept, strongest_features(found["margin"], COUNT))
    for count in (4, 64):
        yield f"{count} features", BASE(subject, concept, strongest_features(found["margin"], count))
    for strength in (1.0, 1.5, 2.5):
        eraser = replace(BASE, strength=strength)
        yield f"strength {strength:g}", eraser(subject, concept, strongest_features(found["margin"], COUNT))
    yield "formula share", BASE(subject, concept, strongest_features(found["share"], COUNT))
    for strength in (1.0, 2.0):
        eraser = replace(BASE, error="drop", strength=strength)
        yield (
            f"error dropped, strength {strength:g}",
            eraser(subject, concept, strongest_features(found["margin"], COUNT)),
        )
    for tokens in (("subject",), ("content", "subject"), ("eos", "pad")):
        eraser = replace(BASE, tokens=tokens)
        yield f"tokens {', '.join(tokens)}", eraser(subject, concept, strongest_features(found["margin"], COUNT))
    for sae in shipped_saes("emoji"):
        if sae is not text and not subject.is_text(sae.site):
            there = find_features(sae, subject, concept, count=COUNT, formula="margin", which=RowQuery(limit=4))
            yield f"site {sae.site}", BASE(subject, concept, there)


def vectors(subject, concept) -> Iterator[tuple[str, Edit]]:
    """Text directions of cross-attention, and columns of the text encoder by both rankings."""
    for role, counts in ((CROSS, (1, 3)), ("mlp_value", (24, 96))):
        for ranked in vector_candidates(subject, concept, role):
            for count in counts:
                for strength in (1.0, 1.5, 2.0):
                    eraser = AblateVectors(strength=strength)
                    yield f"{count} {ranked.name}, strength {strength:g}", eraser(subject, concept, ranked.take(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("concept", nargs="?", default="camel")
    name = parser.parse_args().concept
    subject, concept = cp.load("emoji"), cp.concept(name)
    tested, sampling = panel(concept, images=48), Sampling(steps=5)
    judge = PanelJudge.of(subject, detect.recogniser("emoji"), tested, sampling, 0)
    figures = {}
    table = Table("ablation", f"{name} left", "others kept", title="select split, share of pictures")
    for what, make in (("features", features), ("vectors", vectors)):
        for label, erasure in make(subject, concept):
            tried = judge(f"{what}: {label}", erasure)
            table.add_row(tried.name, f"{tried.residual():.2f}", f"{tried.retention():.2f}")
            figures[tried.name] = [tried.residual(), tried.retention()]
    Console(width=120).print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
