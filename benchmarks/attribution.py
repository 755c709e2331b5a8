"""Does attribution by removal say what is true, where the truth is known?

    python benchmarks/attribution.py [--pictures 32]

On games in closed form every summary is compared with its definition. On `emoji`: a feature that never fires, a feature that
stands in its autoencoder twice, and the causal trace of docs/models/emoji.md, where the first layer's feed-forward part at the
end token is what makes the object. Columns ranked by attribution go against columns ranked by contrast, judged on pictures of
test sentences. On `emoji-untaught` nothing may be found. Ends with one line of JSON:

dummy: largest |score| of a player that does nothing. efficiency_error: largest |Σ scores - (v(all) - v(none))|.
exact_error: largest gap between 32 pairs of permutations and enumeration, as a share of the largest score; `exact_covered`: share of
players whose exact value lies in the estimate's interval. `real_exact_error`, `real_covered`: the same of six places of `emoji`.
trace_share: the first layer's share at the end token, of Shapley's values among two layers x {subject, end, padding};
`trace_share_by_mean`: the same by removal `mean`, on half of the objects; `trace_share_end_and_pad`: with end and padding as one
player; `trace_end_alone` and the like: what comes back with the first layer's part there alone, as a share of what comes back
with all of it. deletion_gain: detection with 51 of 1,024 columns out by contrast, less by attribution; mean over 8 objects.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe import detect
from concept_probe.activations import tap
from concept_probe.evaluation.trials import judge_answers
from concept_probe.find.attribution.scoring import summarised
from concept_probe.find.attribution.summaries import IntegratedGradients, Shapley
from concept_probe.find.vectors.columns import zero_columns
from concept_probe.learn import shipped_saes
from concept_probe.testbed.concepts import emoji_concept
from concept_probe.testbed.vocabulary import REMOVED_OBJECTS, STYLES, TEMPLATES, objects
from concept_probe.types import Attribution, Concept, Prompt, Query, Sampling, Score, Site, Splits, Subspace

MADE_HERE = Score("made by the benchmark", 1.0, 1.0, 1.0, 1)
QUICK = Sampling(steps=8)
"""`emoji` draws what it is asked for in eight steps, too."""
console = Console(stderr=True)


def closed_form() -> dict[str, float]:
    """Enumeration against all orders, and permutations against enumeration, on random games with all interactions."""
    gap, error, covered, efficiency = 0.0, 0.0, [], 0.0
    for seed in range(8):
        players = 3 + seed % 4
        value = multilinear(players, seed)
        exact = by_orders(value, players)
        design = Shapley().design(players)
        found = summarised(Shapley(), design, played(value, design.masks), torch.arange(12))
        gap = max(gap, float(np.abs(found.value.numpy() - exact).max()))
        drawn = Shapley(samples=32, seed=seed, exact=False)
        design = drawn.design(players)
        guess = summarised(drawn, design, played(value, design.masks), torch.arange(12), seed)
        error = max(error, float(np.abs(guess.value.numpy() - exact).max() / np.abs(exact).max()))
        covered += [low <= exact[i] <= high for i, (low, high) in enumerate(map(guess.interval, range(players)))]
        total = float(value(np.ones(players)).mean() - value(np.zeros(players)).mean())
        efficiency = max(efficiency, abs(float(found.value.sum()) - total), abs(float(guess.value.sum()) - total))
    return {
        "definition_error": gap,
        "exact_error": error,
        "exact_covered": float(np.mean(covered)),
        "efficiency": efficiency,
    }


def multilinear(players: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """12 queries' values of shares (m,): random sums of products of up to three of them."""
    draw = np.random.default_rng(seed)
    terms = [t for k in range(4) for t in itertools.combinations(range(players), k)]
    weights = draw.normal(size=(12, len(terms)))
    return lambda keep: weights @ np.array([np.prod(keep[list(t)]) for t in terms])


def played(value: Callable[[np.ndarray], np.ndarray], masks: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.from_numpy(value(keep)) for keep in masks.numpy()])


def by_orders(value: Callable[[np.ndarray], np.ndarray], players: int) -> np.ndarray:
    total = np.zeros(players)
    for order in itertools.permutations(range(players)):
        keep, before = np.zeros(players), float(value(np.zeros(players)).mean())
        for i in order:
            keep[i] = 1
            after = float(value(keep).mean())
            total[i] += after - before
            before = after
    return total / math.factorial(players)


def features(subject: Any, concept: Concept) -> dict[str, float]:
    """Eight features of the shipped autoencoder: five of the concept's, one that is copied to a second place, and one dead."""
    sae: Any = next(s for s in shipped_saes("emoji") if subject.is_text(s.site))
    (found,) = cp.find_features(sae, subject, concept, count=5)
    chosen = list(found.features)
    rest = [j for j in range(sae.width) if j not in chosen]
    dead, copy = rest[0], rest[1]
    with torch.no_grad():
        sae.b_enc[dead] = -1e6
        sae.W_enc[:, copy], sae.W_dec[copy], sae.b_enc[copy] = (
            sae.W_enc[:, chosen[0]],
            sae.W_dec[chosen[0]],
            sae.b_enc[chosen[0]],
        )
    players = [
        Subspace(sae.site, sae.decoder[[j]].detach().mT, "activation", MADE_HERE, features=(j,), codec=sae)
        for j in (*chosen, copy, dead)
    ]
    plan = cp.AttributionPlan(sampling=QUICK, judged=None, controls=False)
    out: dict[str, float] = {"dummy": 0.0, "symmetry": 0.0, "efficiency": 0.0}
    for behaviour, summaries in (
        ("readout", ("leave_one_out", "alone", "shapley", "banzhaf")),
        ("divergence", ("shapley",)),
    ):
        for summary in summaries:
            a = cp.attribute(subject, concept, players, "zero", behaviour, summary, replace(plan, prompts=4))
            value = [score.value for score in a.scores]
            scale = max(map(abs, value))
            out["dummy"] = max(out["dummy"], abs(value[-1]), abs(a.scores[-1].low), abs(a.scores[-1].high))
            out["symmetry"] = max(out["symmetry"], abs(value[0] - value[-2]) / scale)
            out["efficiency"] = max(out["efficiency"], abs(a.gap or 0.0))
    return out


def many_objects(count: int) -> Concept:
    """`count` objects, spread over the list, each in one test sentence: a concept of all that `emoji` draws. Of the rest every
    fourth stands among other prompts, each in one fit sentence."""
    every = objects()
    chosen = [every[i * len(every) // count].name for i in range(count)]
    prompts = tuple(Prompt(TEMPLATES["test"][i % 4].format(o=o, s=STYLES[i % 4]), o, o) for i, o in enumerate(chosen))
    rest = [o.name for o in every if o.name not in chosen][::4]
    others = tuple(Prompt(TEMPLATES["fit"][i % 4].format(o=o, s=STYLES[i % 4]), o, o) for i, o in enumerate(rest))
    return Concept("objects", Splits(select=prompts, test=prompts), unrelated=Splits(fit=others))


def trace(subject: Any, pictures: int) -> tuple[dict[str, float], Attribution]:
    """Two layers x {subject, end, padding}, by zero and detection: Shapley over all 64 coalitions, and with the padding part of
    the end. Then the first layer alone with every kind of token a player, as in the table of docs/models/emoji.md."""
    concept = many_objects(pictures)
    plan = cp.AttributionPlan(prompts=pictures, sampling=QUICK, judged=None, controls=False, most_answers=100_000)
    sites = subject.sites("text_mlp_out")

    def played(places: Sequence[cp.Spot], summary: str) -> Attribution:
        return cp.attribute(subject, concept, places, "zero", "detection", summary, plan)

    six = [cp.Spot(site, (kind,)) for site in sites for kind in ("subject", "eos", "pad")]
    found = played(six, "shapley")
    half = pictures // 2
    by_mean = cp.attribute(
        subject, many_objects(half), six, "mean", "detection", "shapley", replace(plan, prompts=half)
    )
    joined = [cp.Spot(site, kinds) for site in sites for kinds in (("subject",), ("eos", "pad"))]
    together = played(joined, "shapley")
    first = [cp.Spot(sites[0], kinds) for kinds in (("eos",), ("pad",), ("subject",), ("bos", "content"))]
    alone = played(first, "alone")
    whole = alone.whole.value - alone.none.value
    return {
        "trace_share": found.share(found.players[1]),
        "trace_share_by_mean": by_mean.share(by_mean.players[1]),
        "trace_pad_by_mean": by_mean.share(by_mean.players[2]),
        "trace_share_end_and_pad": together.share(together.players[1]),
        "trace_end_alone": alone.scores[0].value / whole,
        "trace_pad_alone": alone.scores[1].value / whole,
        "trace_subject_alone": alone.scores[2].value / whole,
        "efficiency": abs(found.gap or 0.0),
    }, found


def estimated(subject: Any) -> dict[str, float]:
    """Six places of a real model: permutations against enumeration, the estimate's intervals over draws alone counted."""
    concept = emoji_concept("camel")
    plan = cp.AttributionPlan(sampling=QUICK, judged=None, controls=False)
    exact, drawn = (
        cp.attribute(subject, concept, "mlp", "zero", "readout", way, plan)
        for way in (Shapley(), Shapley(samples=16, exact=False))
    )
    held = [d.low - 1e-12 <= e.value <= d.high + 1e-12 for e, d in zip(exact.scores, drawn.scores, strict=True)]
    gap = max(abs(e.value - d.value) for e, d in zip(exact.scores, drawn.scores, strict=True))
    return {"real_exact_error": gap, "real_covered": sum(held) / len(held), "efficiency": abs(exact.gap or 0.0)}


def deletion(subject: Any) -> tuple[dict[str, float], list[tuple[str, float, float, float, float]]]:
    """51 of the 1,024 columns of the first layer out: by integrated gradients of the readout, and by contrast x norm."""
    site, hidden = subject.sites("mlp_value")[0], subject.sites("text_mlp_hidden")[0]
    weight = subject.matrix(site).detach()
    count = int(0.05 * weight.shape[1])
    players = [
        cp.Player(str(j), (Subspace(replace(site, item=j), weight[:, [j]].clone(), "parameter", MADE_HERE),))
        for j in range(weight.shape[1])
    ]
    plan = cp.AttributionPlan(prompts=24, split="fit", judged=None, controls=False, most_answers=100_000)
    usual = coefficients(
        subject,
        hidden,
        [Prompt(TEMPLATES["fit"][k].format(o=o.name, s=STYLES[k % 4])) for o in objects() for k in range(4)],
    ).mean(0)
    rows = []
    for name in REMOVED_OBJECTS:
        concept = emoji_concept(name)
        found = cp.attribute(subject, concept, players, "zero", "readout", IntegratedGradients(points=4), plan)
        contrast = (coefficients(subject, hidden, concept.target.fit).mean(0) - usual) * weight.norm(dim=0)
        asked = [Query(p, seed=i) for i, p in enumerate(concept.target.test)]
        rest = [Query(p, seed=i) for i, p in enumerate(concept.neighbours.test + concept.unrelated.test)][::3]
        cells = []
        for chosen in (contrast.topk(count).indices.tolist(), list(found.order()[:count])):
            with zero_columns(subject, {site: chosen}):
                cells += [named(subject, asked), named(subject, rest)]
        rows.append((name, *cells))
    contrast_left, _, ours_left, ours_rest = (sum(row[i] for row in rows) / len(rows) for i in range(1, 5))
    return {"deletion_gain": contrast_left - ours_left, "left_by_contrast": contrast_left, "left_by_attribution": ours_left,
            "others_by_attribution": ours_rest, "others_by_contrast": sum(row[2] for row in rows) / len(rows)}, rows  # fmt: skip


def coefficients(subject: Any, site: Site, prompts: Sequence[Prompt]) -> torch.Tensor:
    """Largest coefficient of every column over the tokens of each prompt: (n, columns)."""
    seen: list[torch.Tensor] = []
    with tap(subject, {site: lambda x, moment: seen.append(x.detach())}):
        subject.encode(prompts)
    return torch.cat(seen).amax(1)


def named(subject: Any, queries: Sequence[Query]) -> float:
    """Share of pictures in which the object that was asked for is recognised."""
    trials = judge_answers(detect.recogniser("emoji"), subject.generate(queries), queries)
    return sum(t.seen == t.query.prompt.label for t in trials) / len(trials)


def twin() -> dict[str, float]:
    """The never-taught twin asked for the camel: largest score, and the share of intervals that hold 0."""
    subject = cp.load("emoji-untaught")
    plan = cp.AttributionPlan(prompts=8, sampling=QUICK, judged=None, controls=False)
    found = cp.attribute(
        subject, cp.concept("camel", model="emoji-untaught"), "mlp", "zero", "detection", "shapley", plan
    )
    held = [score.low <= 0 <= score.high for score in found.scores]
    return {"twin_covered": sum(held) / len(held), "twin_largest": max(abs(s.value) for s in found.scores)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=32, help="objects in the causal trace, a picture each")
    options = parser.parse_args()
    start = time.monotonic()
    subject, camel = cp.load("emoji"), cp.concept("camel")
    results = {"closed": closed_form(), "features": features(subject, camel), "estimated": estimated(subject)}
    results["trace"], found = trace(subject, options.pictures)
    results["deletion"], rows = deletion(subject)
    results["twin"] = twin()
    table = Table(
        "place", "Shapley", "95 % interval", title=f"two layers of the text encoder, {options.pictures} objects"
    )
    for score in found.scores:
        table.add_row(score.name, f"{score.value:.3f}", f"{score.low:.3f} – {score.high:.3f}")
    console.print(table)
    heads = ("object", "contrast: left", "others", "attribution: left", "others")
    table = Table(*heads, title="51 of 1,024 columns of the first layer out")
    for name, *cells in rows:
        table.add_row(name, *(f"{cell:.3f}" for cell in cells))
    console.print(table)
    efficiency = max(part.pop("efficiency") for part in results.values() if "efficiency" in part)
    took = {"seconds": round(time.monotonic() - start), "cpu_seconds": round(time.process_time())}
    flat = {name: value for part in results.values() for name, value in part.items()}
    print(json.dumps({**flat, "efficiency_error": efficiency, **took}))


if __name__ == "__main__":
    main()
