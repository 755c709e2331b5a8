"""Settings of CGCE, IRECE and patch replacement on `emoji`, on the select split: how their defaults were chosen.

    python benchmarks/emoji_guards.py [--parts cgce irece patch_replacement] [--concept camel] [--count 6] [--steps 10]

Each cell is the share of pictures that show what was asked for. IRECE stands on top of UCE; `from pictures` starts
walks from pictures of the concept with 30 % of the steps left out, asked for by name. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe import detect
from concept_probe.attacks.latents.sdedit import from_pictures
from concept_probe.erasers import Cgce, Irece, PatchReplacement, Uce
from concept_probe.evaluation.trials import judge_answers
from concept_probe.families.diffusion.trajectory import SamplingHook
from concept_probe.find import RowQuery, find_features
from concept_probe.learn import shipped_saes
from concept_probe.testbed.concepts import emoji_concept as named_concept
from concept_probe.types import Query, Sampling

KINDS = ("target", "paraphrases", "implicit", "neighbours", "unrelated")
CGCE = (Cgce(penalty=0.01), Cgce(penalty=1.0), Cgce())
IRECE: tuple[dict[str, Any], ...] = (
    {"share": 0.5, "until": 0.6, "quantile": 0.95},
    {"share": 0.5, "until": 1.0, "quantile": 0.8},
    {"share": 0.7, "until": 0.9, "quantile": 0.85},
    {"share": 1.0, "until": 0.8, "quantile": 0.85},
    {"share": 1.0, "until": 0.9, "quantile": 0.8},
)
PATCHES: tuple[dict[str, Any], ...] = ({"at": "site"}, {}, {"quantile": 0.7})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", default=["cgce", "irece", "patch_replacement"])
    parser.add_argument("--concept", default="camel")
    parser.add_argument("--count", type=int, default=6, help="pictures per kind of prompt")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps")
    options = parser.parse_args()
    subject, looks, concept = cp.load("emoji"), detect.recogniser("emoji"), named_concept(options.concept)
    sampling = Sampling(steps=options.steps)

    def shown(kind, on=(), start: float = 0.0) -> float:
        prompts = concept.prompts(kind, "select")
        queries = [Query(prompts[i * len(prompts) // options.count], 7000 + i) for i in range(options.count)]
        with contextlib.ExitStack() as stack:
            for erasure in on:
                stack.enter_context(erasure.on(subject))
            if start:
                assert concept.examples is not None
                latents = subject.latents(concept.examples[: options.count])
                stack.enter_context(subject.hooked(SamplingHook(start=from_pictures(latents, start))))
            seen = judge_answers(looks, subject.generate(queries, sampling), queries)
        return sum(t.seen == t.query.prompt.label for t in seen) / len(seen)

    def rows() -> Iterator[tuple[str, dict[str, float]]]:
        if "cgce" in options.parts:
            for eraser in CGCE:
                guard = eraser(subject, concept)
                yield f"cgce, penalty {eraser.penalty:g}", {kind: shown(kind, [guard]) for kind in KINDS}
        if "patch_replacement" in options.parts:
            found = find_features(list(shipped_saes("emoji")), subject, concept, count=1, which=RowQuery(limit=4))
            for chosen in PATCHES:
                guard = PatchReplacement(sampling=sampling, **chosen)(subject, concept, found)
                yield f"patch_replacement {chosen or ''}", {kind: shown(kind, [guard]) for kind in KINDS}
        if "irece" in options.parts:
            edit = Uce()(subject, concept)
            yield "uce", {"target": shown("target", [edit]), "from pictures": shown("target", [edit], 0.3)}
            for chosen in IRECE:
                guard = Irece(sampling=sampling, limit=4, **chosen)(subject, concept)
                on = [edit, guard]
                told = ", ".join(f"{k} {v:g}" for k, v in chosen.items())
                yield (
                    f"irece on uce, {told}",
                    {
                        "from pictures": shown("target", on, 0.3),
                        "neighbours": shown("neighbours", on),
                        "unrelated": shown("unrelated", on),
                    },
                )

    figures, console = {}, Console(stderr=True)
    for name, row in rows():
        figures[name] = row
        console.print(name, {kind: f"{value:.2f}" for kind, value in row.items()})
    table = Table(
        "guard", *KINDS, "from pictures", title="share of pictures that show what was asked for, select split"
    )
    for name, row in figures.items():
        table.add_row(name, *(f"{row[k]:.2f}" if k in row else "" for k in (*KINDS, "from pictures")))
    Console(width=160).print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
