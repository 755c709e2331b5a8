"""At which site of SmolLM2 single features are selective for the packaged concepts: small autoencoders, one per site.

    python benchmarks/smollm2_layers.py [--concepts Japan ...] [--limit 6]
    python benchmarks/smollm2_layers.py --lengths    # how long the first position's activation is, in every layer

Every autoencoder sees the same few texts. Per site it prints the length of the first position's activation and of the
others', the held-out FVU, and over concepts the mean AUROC (select split) of the feature of largest contrast (fit
split) beside what 97.5 % of shuffled labels stay under.
"""

from __future__ import annotations

import argparse
import json

import torch
from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe.activations import capture
from concept_probe.find import RowQuery, find_features
from concept_probe.learn import Run, evaluate_sae, train_saes
from concept_probe.testbed.readings import WORDNET, by_length, fact_readings, glosses

PLACES = (("resid", 10), ("mlp_out", 12), ("mlp_out", 14), ("mlp_out", 16), ("mlp_out", 18))
CONCEPTS = ("Japan", "the human body", "Christianity", "music", "Harry Potter", "geometry")
KINDS = ("content", "subject", "eos")


def lengths(store, site) -> tuple[float, float]:
    """Median length of a row at the first position, and at the others."""
    block = store.read(site)
    size, first = torch.linalg.vector_norm(block.x, dim=1), block.columns["token"] == 0
    return float(size[first].median()), float(size[~first].median())


def print_lengths(subject, prompts) -> None:
    """One row per layer."""
    roles = ("resid", "mlp_out")
    store = capture(subject, by_length(prompts), roles=roles, kinds=KINDS)
    table = Table("layer", *(f"{role}, {which}" for role in roles for which in ("first", "others")))
    out = {}
    for layer, sites in enumerate(zip(*map(subject.sites, roles), strict=True)):
        out[layer] = [round(x, 1) for site in sites for x in lengths(store, site)]
        table.add_row(str(layer), *(f"{x:.0f}" for x in out[layer]))
    Console(width=120).print(table)
    print(json.dumps(out))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--concepts", nargs="+", default=list(CONCEPTS))
    options.add_argument("--glosses", type=int, default=400, help="entries of WordNet to learn from and to judge on")
    options.add_argument("--samples", type=int, default=50_000, help="rows in each training run")
    options.add_argument("--limit", type=int, default=6, help="prompts of each list")
    options.add_argument("--wordnet", default=str(WORDNET), help="folder of WordNet's data files")
    options.add_argument("--lengths", action="store_true", help="print lengths of activations and train nothing")
    given = options.parse_args()
    subject = cp.load("smollm2")
    if given.lengths:
        print_lengths(subject, glosses(64, type(WORDNET)(given.wordnet))[0])
        return
    sites = [subject.sites(role)[layer] for role, layer in PLACES]
    learned, held = glosses(given.glosses, type(WORDNET)(given.wordnet))
    texts = by_length((*learned, *[p for p in fact_readings() if p.form == "plain"][::2]))
    store = capture(subject, texts, sites=sites, kinds=KINDS)
    judged = capture(subject, by_length(held), sites=sites, kinds=KINDS)
    runs = {str(site): Run(site, k=32, expansion=2) for site in sites}
    made = train_saes(store, runs, samples=given.samples)
    found = {str(site): [] for site in sites}
    for name in given.concepts:
        for space in find_features(
            list(made.values()), subject, cp.concept(name, "smollm2"), count=1, which=RowQuery(limit=given.limit)
        ):
            found[str(space.site)].append(space.scores[0])
    table = Table("site", "first", "others", "FVU", "AUROC", "shuffled", "concepts above")
    out = {}
    for (role, layer), site in zip(PLACES, sites, strict=True):
        scores = found[str(site)]
        fvu = next(s for s in evaluate_sae(made[str(site)], judged) if s.name == "fvu")
        mean = sum(s.value for s in scores) / len(scores)
        chance = sum(s.control or 0.5 for s in scores) / len(scores)
        above = sum(s.low > (s.control or 0.5) for s in scores)
        first, others = lengths(store, site)
        table.add_row(f"{role} {layer}", f"{first:.0f}", f"{others:.0f}", f"{fvu.value:.3f}", f"{mean:.3f}",
                      f"{chance:.3f}", f"{above} of {len(scores)}")  # fmt: skip
        out[f"{role} {layer}"] = {
            "first": round(first, 1), "others": round(others, 1), "fvu": round(fvu.value, 3), "auroc": round(mean, 3),
            "shuffled": round(chance, 3), "above": above,
        }  # fmt: skip
    Console(width=120).print(table)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
