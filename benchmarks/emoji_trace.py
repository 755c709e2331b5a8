"""Does the text encoder of `emoji` compute the concept, and where?

    python benchmarks/emoji_trace.py [--pictures 64]

Three interventions on each layer's feed-forward part, judged on generated pictures of test sentences:
take it out; take it out and give back its output at one token only; take out the columns of its
value matrix that contrast most with the concept. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json

import torch
from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe import detect
from concept_probe.activations import tap
from concept_probe.evaluation.trials import judge_answers
from concept_probe.testbed.concepts import emoji_concept
from concept_probe.testbed.vocabulary import REMOVED_OBJECTS, STYLES, TEMPLATES, objects
from concept_probe.types import EOS, SUBJECT, Prompt, Query


def named(subject, queries: list[Query]) -> float:
    """Share of pictures in which the object that was asked for is recognised."""
    trials = judge_answers(detect.recogniser("emoji"), subject.generate(queries), queries)
    return sum(t.seen == t.query.prompt.label for t in trials) / len(trials)


def last(kinds: torch.Tensor, kind: int) -> torch.Tensor:
    """Mask (b, t) of the last token of a kind in each row."""
    place = torch.arange(kinds.shape[1]) * (kinds == kind)
    return (torch.arange(kinds.shape[1]) == place.argmax(1)[:, None]) & (kinds == kind)


PLACES = {
    "nowhere": lambda kinds: torch.zeros_like(kinds, dtype=torch.bool),
    "last subject token": lambda kinds: last(kinds, SUBJECT),
    "end token": lambda kinds: kinds == EOS,
    "end token and padding": lambda kinds: kinds >= EOS,
}


def keep_only(place: str):
    """Zero a feed-forward output everywhere but at `place`."""
    return lambda x, moment: (
        x * PLACES[place](moment.token_kinds).to(x)[..., None] if moment.branches[0] == "cond" else None
    )


def coefficients(subject, site, prompts) -> torch.Tensor:
    """Largest coefficient of every column over the tokens of each prompt: (n, columns)."""
    seen = []
    with tap(subject, {site: lambda x, moment: seen.append(x.detach())}):
        subject.encode(prompts)
    return torch.cat(seen).amax(1)


def without_columns(subject, layer: int, columns: torch.Tensor, queries: list[Query]) -> float:
    site = subject.sites("text_mlp_hidden")[layer]
    keep = torch.ones(subject.parameter(subject.sites("mlp_value")[layer]).shape[1])
    keep[columns] = 0
    with tap(subject, {site: lambda x, moment: x * keep}):
        return named(subject, queries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=len(objects()), help="pictures per cell of the first table")
    count = parser.parse_args().pictures
    subject = cp.load("emoji")
    queries = [
        Query(Prompt(TEMPLATES["test"][i % 4].format(o=o.name, s=STYLES[i % 4]), o.name, o.name), seed=i)
        for i, o in enumerate(objects()[:count])
    ]
    console = Console()
    sites = subject.sites("text_mlp_out")
    table = Table("feed-forward kept at", *(f"layer {i}" for i in range(len(sites))), title="share of objects named")
    rows = {}
    for place in PLACES:
        rows[place] = []
        for site in sites:
            with tap(subject, {site: keep_only(place)}):
                rows[place].append(named(subject, queries))
        table.add_row(place, *(f"{v:.3f}" for v in rows[place]))
    console.print(table)
    console.print(f"nothing taken out: {named(subject, queries):.3f}; n {len(queries)}")

    layer = min(range(len(sites)), key=lambda i: rows["nowhere"][i])
    hidden = subject.sites("text_mlp_hidden")[layer]
    weight = subject.parameter(subject.sites("mlp_value")[layer])
    share = int(0.05 * weight.shape[1])
    others = coefficients(
        subject,
        hidden,
        [Prompt(TEMPLATES["fit"][k].format(o=o.name, s=STYLES[k % 4])) for o in objects() for k in range(4)],
    ).mean(0)
    table = Table(
        "object",
        "before",
        f"{share} columns out",
        f"{share} random out",
        "other objects",
        title=f"columns of layer {layer}'s value matrix ({share} of {weight.shape[1]}), chosen by contrast on fit sentences",
    )
    cells = {}
    for name in REMOVED_OBJECTS:
        about = emoji_concept(name)
        score = (coefficients(subject, hidden, about.target.fit).mean(0) - others) * weight.norm(dim=0)
        asked = [Query(p, seed=i) for i, p in enumerate(about.target.test)]
        rest = [Query(p, seed=i) for i, p in enumerate(about.neighbours.test + about.unrelated.test)][::3]
        random = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(0))[:share]
        chosen = score.topk(share).indices
        cells[name] = (
            named(subject, asked),
            without_columns(subject, layer, chosen, asked),
            without_columns(subject, layer, random, asked),
            without_columns(subject, layer, chosen, rest),
        )
        table.add_row(name, *(f"{v:.3f}" for v in cells[name]))
    console.print(table)
    print(
        json.dumps(
            {
                "naming_without_mlp": rows["nowhere"],
                "restored_by_patch": rows["last subject token"],
                "restored_at_end_token": rows["end token"],
                "restored_at_end_and_padding": rows["end token and padding"],
                "columns": share,
                "targets_under_half": sum(c[1] < 0.5 for c in cells.values()),
                "random_mean": sum(c[2] for c in cells.values()) / len(cells),
                "others_mean": sum(c[3] for c in cells.values()) / len(cells),
                "n": len(queries),
            }
        )
    )


if __name__ == "__main__":
    main()
