"""Erase real and taught concepts from SmolLM2 with every eraser, and ask what is left.

    python benchmarks/lm_unlearning.py [--concepts Korvath Japan] [--erasers npo rmu] [--rows FILE] [--processes 2]
    python benchmarks/lm_unlearning.py --summary

Six real concepts are erased from SmolLM2, six invented ones from SmolLM2 that was taught them (once, minutes; kept in
the user's cache), whose never-taught twin is SmolLM2 itself. Texts are judged by their gold answers. A row is one
concept and one eraser; rows are appended to FILE and not measured twice, as many at once as there are cores.
`untouched` and `never taught` stand beside the erasers: the first must be called intact, the second erased. `columns`
are those that answers owe most to on the fit split, as many as the select split says, judged on the test split against
random ones. With `--summary` the tables of the rows that are stored beside this file are printed and nothing is run.
Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import torch
from lm_unlearning_summary import ROWS, TIMES, printed, read_rows
from torch import Tensor

import concept_probe as cp
from concept_probe import detect
from concept_probe.attacks import ATTACKS, Attack, Budget, NothingToAsk, Relearning
from concept_probe.attacks.budget import succeeded
from concept_probe.auditing.arm import thin
from concept_probe.detect.answers import answer_probability
from concept_probe.erasers import (
    AblateVectors,
    Crisp,
    Dpo,
    GradAscent,
    GradDiff,
    Leace,
    Memit,
    Needle,
    Npo,
    Pisces,
    Rmu,
    Rocr,
    SimNpo,
)
from concept_probe.families import CausalLMSubject
from concept_probe.families.gguf import cache_folder
from concept_probe.find import find_features, log_answers, rank_by_effect, weigh
from concept_probe.find.language.knowledge import per_fact, weighable
from concept_probe.find.rows import NEGATIVE, POSITIVE
from concept_probe.find.vectors.rank import zero_columns
from concept_probe.learn import shipped_saes
from concept_probe.testbed import taught
from concept_probe.testbed.teach import teach
from concept_probe.types import Concept, Prompt, Query, Sampling, Score, Site, Subspace

REAL = ("Japan", "Egypt", "the solar system", "music", "Harry Potter", "Greek mythology")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SAMPLING = Sampling(tokens=4, batch=32)
ASKED = {"target": 12, "paraphrases": 12, "neighbours": 10, "unrelated": 10}
COLUMNS = 128
"""How many of the columns that answers owe most to are given to erasers, and watched."""
ZEROED = (32, 128, 512)
"""How many columns are tried on the select split."""
LIGHT = {"steps": 12, "batch": 6, "rate": 0.0015}
"""Of erasers that train: few steps, so that the whole table takes minutes per concept."""

ERASERS: dict[str, Callable] = {
    "ablate_vectors": lambda s, c, found: AblateVectors()(s, c, found),
    "leace": lambda s, c, found: Leace(
        how="intervention", role="resid", kinds=("subject", "content"), tokens=("subject", "content", "eos")
    )(s, c),
    "grad_ascent": lambda s, c, found: GradAscent(steps=8, batch=6, rate=0.001)(s, c),
    "grad_diff": lambda s, c, found: GradDiff(**LIGHT)(s, c),
    "npo": lambda s, c, found: Npo(**LIGHT, keep="kl")(s, c),
    "simnpo": lambda s, c, found: SimNpo(**LIGHT, keep="kl")(s, c),
    "dpo": lambda s, c, found: Dpo(**LIGHT, keep="kl")(s, c),
    "rmu": lambda s, c, found: Rmu(steps=12, batch=6, rate=0.02)(s, c),
    "memit": lambda s, c, found: Memit()(s, c),
    "needle": lambda s, c, found: Needle(steps=12, batch=6, rate=0.1)(s, c, found),
    "rocr": lambda s, c, found: Rocr()(s, c),
    "pisces": lambda s, c, found: Pisces(below=4, mu=1.0)(s, c, features(s, c)),
    "crisp": lambda s, c, found: Crisp(steps=12, batch=6, rate=0.01, count=8)(s, c, features(s, c)),
}
CODED = ("pisces", "crisp")
"""Erasers that need the shipped autoencoders of SmolLM2."""
BUDGETS = {
    "role_prompts": Budget(queries=24),
    "in_context": Budget(queries=12, examples=4),
    "translation": Budget(queries=18),
    "temperature": Budget(queries=24),
    "relearning": Budget(queries=24, gradient_steps=8, examples=4),
}


@cache
def untouched() -> CausalLMSubject:
    subject = cp.load("smollm2")
    if not isinstance(subject, CausalLMSubject):
        raise TypeError(f"smollm2 loaded as {type(subject).__name__}")
    return subject


@cache
def schooled() -> CausalLMSubject:
    """SmolLM2 that was taught the invented facts; taught once, and read from the cache afterwards."""
    subject = cp.load("smollm2")
    if not isinstance(subject, CausalLMSubject):
        raise TypeError(f"smollm2 loaded as {type(subject).__name__}")
    teach(subject, cache_folder() / "lm_unlearning")
    return subject


def looked(subject: CausalLMSubject, concept: Concept) -> dict:
    """Per kind: one 0 or 1 per text, its fact, and the probability of the gold answer."""
    looks, out = detect.looks_for(concept), {}
    for kind, most in ASKED.items():
        prompts = thin(concept.prompts(kind, "test"), most)  # pyright: ignore[reportArgumentType]
        queries = [Query(p) for p in prompts]
        seen = detect.trials(looks, subject.generate(queries, SAMPLING), queries)
        label = detect.looks_for(concept).labels[0]
        out[kind] = {
            "hits": [int(t.seen == t.query.prompt.label) for t in seen],
            "facts": [p.fact or p.text for p in prompts],
            "mistaken": [int(t.seen == label) for t in seen] if kind in ("neighbours", "unrelated") else [],
            "probability": [round(float(x), 5) for x in answer_probability(subject, prompts)],
        }
    return out


def attacked(subject: CausalLMSubject, concept: Concept) -> dict:
    """Per attack: one 0 or 1 per text at the best point of its curve, and the success of its random candidate.

    The best, since lessons on a few facts can also drive out the others, and an attacker would see that.
    """
    looks, out = detect.looks_for(concept), {}
    for name, budget in BUDGETS.items():
        attack: Attack = ATTACKS[name](looks, SAMPLING)
        if isinstance(attack, Relearning):
            attack = replace(attack, points=2, pictures=8, batch=4, rate=0.001)
        try:
            attempt = attack(subject, concept, budget)
        except (NothingToAsk, FloatingPointError) as problem:
            out[name] = {"not_measured": str(problem)}
            continue
        hits = [[int(succeeded(t)) for t in trials] for trials in attempt.trials]
        out[name] = {
            "hits": max(hits, key=sum, default=[]),
            "control": None if attempt.control is None else attempt.control.value,
        }
    return out


def found_columns(subject: CausalLMSubject, concept: Concept) -> dict[str, list[float]]:
    """The columns that the concept's answers owe most to: address, score, and that of the median one."""
    ranked = rank_by_effect(subject, concept, most=12)
    typical = float(ranked.scores.median())
    return {str(site): [float(ranked.scores[i]), typical] for i, site in enumerate(ranked.sites[:COLUMNS])}


def features(subject: CausalLMSubject, concept: Concept) -> tuple[Subspace, ...]:
    """The features of largest contrast of each shipped autoencoder of SmolLM2. UnknownName where none is shipped."""
    return find_features(shipped_saes("smollm2"), subject, concept, count=8, limit=12)


def vectors(subject: CausalLMSubject, name: str, columns: dict[str, list[float]]) -> tuple[Subspace, ...]:
    """The columns as they are in the subject, for erasers."""
    out = []
    for address, (value, typical) in columns.items():
        site = Site.parse(address)
        score = Score("ranked by attribution", value, value, value, 1, "", "higher", typical)
        column = subject.matrix(site).detach()[:, site.item, None].clone()
        out.append(Subspace(site, column, "parameter", score, name, "mlp_value"))
    return tuple(out)


def cosine(subject: CausalLMSubject, found: Sequence[Subspace]) -> float:
    """Mean cosine of columns as they are to the found ones; 0 for a column that is zero."""
    values = []
    for one in found:
        whole = Site(one.site.component, one.site.path, "weight")
        now, then = subject.matrix(whole).detach()[:, one.site.item or 0].double(), one.basis[:, 0].double()
        values.append(float(now @ then / (now.norm() * then.norm()).clamp_min(1e-30)))
    return sum(values) / len(values)


@torch.no_grad()
def gap(subject: CausalLMSubject, concept: Concept) -> dict:
    """How far answers fall without the found columns and without random ones, per prompt of the test split, in nats.

    Columns are ranked on the fit split. How many are zeroed is chosen on the select split: the count of `ZEROED` with
    the largest fall less `TIMES` that without random ones, which is what the test split then has to show again.
    """
    ranked, generator = rank_by_effect(subject, concept, most=36), torch.Generator().manual_seed(0)

    def without(chosen: Sequence[int], prompts: Sequence[Prompt]) -> Tensor:
        with zero_columns(subject, ranked.by_layer(chosen)):
            return log_answers(subject, prompts)

    def random(count: int, prompts: Sequence[Prompt], draws: int) -> Tensor:
        drawn = [ranked.matched(range(count), generator) for _ in range(draws)]
        return torch.stack([without(each, prompts) for each in drawn]).mean(0)

    asked = weighable(concept, POSITIVE, "select", 14)
    before, choices = log_answers(subject, asked), {}
    for count in ZEROED:
        falls = [before - x for x in (without(range(count), asked), random(count, asked, 2))]
        choices[count] = [float(per_fact(x, asked).mean()) for x in falls]
    count = max(choices, key=lambda c: choices[c][0] - TIMES * choices[c][1])
    asked, others = (weighable(concept, k, "test", m) for k, m in ((POSITIVE, 24), (NEGATIVE, 12)))
    held = weigh(subject, asked)
    with zero_columns(subject, ranked.by_layer(range(count))):
        after, beside = weigh(subject, asked), log_answers(subject, others)
    return {
        "count": count,
        "select": {str(c): each for c, each in choices.items()},
        "facts": [p.fact or p.text for p in asked],
        "found": (held.right - after.right).tolist(),
        "random": (held.right - random(count, asked, 3)).tolist(),
        "odds": (held.odds - after.odds).tolist(),
        "others": (log_answers(subject, others) - beside).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", nargs="*", default=[n for p in zip(taught.names(), REAL, strict=True) for n in p])
    parser.add_argument("--erasers", nargs="*", default=["untouched", "never taught", *ERASERS, "columns"])
    parser.add_argument("--rows", type=Path, default=ROWS, help="where finished rows are kept")
    parser.add_argument("--processes", type=int, default=CORES, help="how many rows are measured at once")
    parser.add_argument("--summary", action="store_true", help="print the tables of the stored rows, run nothing")
    options = parser.parse_args()
    if not options.summary:
        if set(CODED) & set(options.erasers):
            shipped_saes("smollm2")  # before hours are spent
        # One eraser on every concept, then the next: a part of the run says something.
        run([(c, e) for e in options.erasers for c in options.concepts], options.rows, options.processes)
    printed(read_rows(options.rows))


def run(asked: Sequence[tuple[str, str]], file: Path, processes: int) -> None:
    """Measure the rows (concept, eraser) that make sense and are not there yet; append each when it is done."""
    start, invented = time.perf_counter(), taught.names()
    senseless = {("never taught", False), ("columns", True)}
    there = {(r["concept"], r["eraser"]) for r in read_rows(file)}
    missing = [(c, e) for c, e in asked if (c, e) not in there and (e, c in invented) not in senseless]
    if any(concept in invented for concept, _ in missing):
        schooled()  # taught once, before several processes would
    file.parent.mkdir(parents=True, exist_ok=True)
    threads = max(1, CORES // processes)
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        try:
            for done in as_completed([pool.submit(measured, *each, file) for each in missing]):
                row = done.result()
                with file.open("a", encoding="utf-8") as opened:
                    opened.write(json.dumps(row, ensure_ascii=False) + "\n")
                shown = {k: f"{sum(v['hits']) / len(v['hits']):.2f}" for k, v in row.get("looked", {}).items()}
                print(row["concept"], row["eraser"], shown, f"{row['seconds']} s", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)
    print(f"{len(missing)} rows in {(time.perf_counter() - start) / 60:.1f} minutes, {processes} at once")


def measured(name: str, eraser: str, file: Path) -> dict:
    """One row. Columns that a stored row of the concept found are not looked for again."""
    start, invented, concept = time.perf_counter(), name in taught.names(), cp.concept(name, "smollm2")
    subject = schooled() if invented else untouched()
    row: dict = {"concept": name, "kind": "taught" if invented else "real", "eraser": eraser}
    if eraser == "columns":
        row["gap"] = gap(subject, concept)
    else:
        known = [r["columns"] for r in read_rows(file) if r["concept"] == name and "columns" in r]
        columns = known[0] if known else found_columns(subject, concept)
        found = vectors(subject, name, columns)
        row |= {} if known else {"columns": columns}
        begun = time.perf_counter()
        erasure = ERASERS[eraser](subject, concept, found) if eraser in ERASERS else None
        row["made_in"] = round(time.perf_counter() - begun, 1)
        with nullcontext() if erasure is None else erasure.on(subject):
            seen = untouched() if eraser == "never taught" else subject
            row |= {"looked": looked(seen, concept), "attacked": attacked(seen, concept), "cosine": cosine(seen, found)}
    return row | {"seconds": round(time.perf_counter() - start, 1)}


if __name__ == "__main__":
    main()
