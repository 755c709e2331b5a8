"""Which feature of the shipped autoencoder of SmolLM2 follows each packaged concept, and what ablating features does.

    python benchmarks/smollm2_features.py [--concepts Japan ...] [--limit 6] [--ablate Japan "Harry Potter"]

Per concept, the features of largest contrast (fit split) are scored on the select split; the best is then measured on
the test split: AUROC of its largest firing per prompt, beside what 97.5 % of shuffled labels stay under. With
`--ablate`, also what is known of a concept's test facts (questions and cloze), of those of others, and of the same with
as many random features that fire as often. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json

import torch
from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe.erasers import AblateFeatures
from concept_probe.evaluation.auroc import auroc_scores
from concept_probe.find import RowQuery, concept_rows, find_features
from concept_probe.find.features.contrast import prompt_firing
from concept_probe.find.language import knowledge
from concept_probe.learn import shipped_saes
from concept_probe.testbed import facts
from concept_probe.types import Concept, Prompt, Score, Subspace


def best(subject, sae, concept: Concept, limit: int, count: int = 16) -> tuple[Subspace, int, int, Score]:
    """The features of largest contrast, the one that the select split prefers, how many are selective, its test score."""
    (space,) = find_features(sae, subject, concept, count=count, which=RowQuery(limit=limit))
    order = sorted(range(count), key=lambda i: -space.scores[i].value)
    feature = space.features[order[0]]
    selective = sum(s.control is not None and s.low > max(0.5, s.control) for s in space.scores)
    rows = concept_rows(subject, concept, [sae.site], "test", RowQuery(limit=limit))[sae.site]
    firing, labels = prompt_firing(sae, rows, torch.tensor([feature]))
    return space, feature, selective, auroc_scores(firing, labels, "AUROC, test split")[0]


def like(space: Subspace, chosen: list[int], rows: torch.Tensor, seed: int = 0) -> tuple[int, ...]:
    """As many features drawn from those that fire about as often on `rows` (n, d) as the chosen ones."""
    assert space.codec is not None
    codes = space.codec.encode(rows)
    fired = torch.bincount(codes.indices[codes.values > 0], minlength=space.codec.width)
    order = fired.argsort(stable=True).tolist()
    place = {feature: i for i, feature in enumerate(order)}
    generator, out = torch.Generator().manual_seed(seed), []
    for feature in chosen:
        near = [f for f in order[max(0, place[feature] - 20) : place[feature] + 20] if f not in (*space.features, *out)]
        out.append(near[int(torch.randint(len(near), (), generator=generator))])
    return tuple(out)


def asked(concept: Concept, kinds: tuple[str, ...], most: int) -> list[Prompt]:
    plain = [p for kind in kinds for p in concept.prompts(kind, "test") if p.form == "plain"]  # pyright: ignore
    return plain[:: max(1, len(plain) // most)][:most]


def ablated(subject, space: Subspace, concept: Concept, limit: int, most: int = 16) -> dict[str, list[float]]:
    """Per arm, the mean share of right answers: of the concept's facts, and of others'."""
    chosen = [f for f, s in zip(space.features, space.scores, strict=True) if s.low > max(0.5, s.control or 0.5)]
    rows = concept_rows(subject, concept, [space.site], "fit", RowQuery(limit=limit))[space.site]
    assert space.codec is not None
    drawn = like(space, chosen, rows.x)
    arms = {"untouched": (), f"{len(chosen)} features": tuple(chosen), "as many random ones": drawn}
    out = {}
    for name, features in arms.items():
        basis = space.codec.decoder[list(features)].mT
        aim = Subspace(space.site, basis, "activation", space.score, features=features, codec=space.codec)
        guard = AblateFeatures(strength=2.0)(subject, concept, [aim])
        with guard.on(subject):
            out[name] = [
                round(float(knowledge(subject, asked(concept, kinds, most)).share.mean()), 3)
                for kinds in (("target", "paraphrases"), ("neighbours", "unrelated"))
            ]
    return out


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--concepts", nargs="+", default=list(facts.fact_names()))
    options.add_argument("--limit", type=int, default=6, help="prompts of each list and split")
    options.add_argument("--ablate", nargs="*", default=[], help="concepts whose selective features are ablated")
    given = options.parse_args()
    subject = cp.load("smollm2")
    (sae,) = shipped_saes("smollm2")
    table = Table("concept", "feature", "AUROC, test", "shuffled", "selective of 16")
    out: dict[str, dict] = {}
    for name in given.concepts:
        concept = cp.concept(name, "smollm2")
        space, feature, selective, score = best(subject, sae, concept, given.limit)
        span = f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"
        table.add_row(name, str(feature), span, f"{score.control:.2f}", str(selective))
        out[name] = {
            "feature": feature, "auroc": round(score.value, 3), "low": round(score.low, 3), "n": score.n,
            "shuffled": round(score.control or 0.5, 3), "selective": selective,
        }  # fmt: skip
        if name in given.ablate:
            out[name]["share"] = ablated(subject, space, concept, given.limit)
    Console(width=120).print(table)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
