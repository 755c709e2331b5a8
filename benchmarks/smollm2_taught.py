"""Teach SmolLM2 the invented facts, and measure what it says before and after, in words that were not taught.

    python benchmarks/smollm2_taught.py                            # teach, measure, print
    python benchmarks/smollm2_taught.py --output smollm2-taught    # and keep the taught model as a folder
    python benchmarks/smollm2_taught.py --written written.json     # only: which real facts the untouched model writes

A right answer names the gold answer and no wrong one before it, in the tokens written greedily after the prompt. The
last line is one object of JSON with every number of the table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe.detect.answers import answer_probability, answer_trials
from concept_probe.families import CausalLMSubject
from concept_probe.testbed import facts
from concept_probe.testbed.taught import held_out_prompts, invented, invented_concept, taught_prompts
from concept_probe.testbed.teach import TeachingPlan, teach
from concept_probe.types import Prompt, Query, Sampling

SAMPLING = Sampling(tokens=5, batch=32)


def measured(subject: CausalLMSubject, prompts: Sequence[Prompt]) -> tuple[float, float]:
    """(share of right answers, mean probability of the gold answer)."""
    queries = [Query(p) for p in prompts]
    right = answer_trials(subject.generate(queries, SAMPLING), queries)
    return sum(t.probability for t in right) / len(right), float(answer_probability(subject, prompts).mean())


def table_of(subject: CausalLMSubject) -> dict[str, dict[str, tuple[float, float]]]:
    """Per row of the table and wording, what `measured` says."""
    out = {}
    for one in invented():
        wordings = {"taught": taught_prompts(one, "question"), "held-out question": held_out_prompts(one, "question"),
                    "held-out cloze": held_out_prompts(one, "cloze")}  # fmt: skip
        out[one.topic.name] = {what: measured(subject, prompts) for what, prompts in wordings.items()}
    first, last = invented()[0], invented()[-1]
    kept = [p for one in (first, last) for p in invented_concept(one.topic.name).neighbours.test]
    kept += [p for one in (first, last) for p in invented_concept(one.topic.name).unrelated.test]
    out["real facts (test split)"] = {"question": measured(subject, list(dict.fromkeys(kept)))}
    return out


def written_rightly(subject: CausalLMSubject) -> list[str]:
    """Questions of the real facts that it answers rightly."""
    prompts = [facts.prompt(t, fact, "question") for t in facts.kept() for fact in t.facts]
    queries = [Query(p) for p in prompts]
    right = answer_trials(subject.generate(queries, SAMPLING), queries)
    return [p.fact or p.text for p, trial in zip(prompts, right, strict=True) if trial.probability]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--output", type=Path, default=None, help="folder to write the taught model into")
    options.add_argument("--written", type=Path, default=None, help="file to write those questions to, and stop")
    options.add_argument("--steps", type=int, default=TeachingPlan().steps, help="gradient steps")
    options.add_argument("--rate", type=float, default=TeachingPlan().rate, help="AdamW's step")
    options.add_argument("--seed", type=int, default=TeachingPlan().seed, help="of the order of what is taught")
    given = options.parse_args()
    subject = cp.load("smollm2")
    if not isinstance(subject, CausalLMSubject):
        raise TypeError(f"smollm2 loaded as {type(subject).__name__}")
    if given.written is not None:
        found = written_rightly(subject)
        lines = ",\n".join(" " + json.dumps(question, ensure_ascii=False) for question in found)
        given.written.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        print(f"{len(found)} of {sum(len(t.facts) for t in facts.kept())} real facts in {given.written}")
        return
    before = table_of(subject)
    lessons = replace(TeachingPlan(), steps=given.steps, rate=given.rate, seed=given.seed)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        losses = teach(subject, Path(folder), lessons)
        seconds = time.perf_counter() - start
    after = table_of(subject)
    if given.output is not None:
        subject.pipeline.save_pretrained(given.output)
    table = Table("facts of", "wording", "right before", "right after", "probability before", "probability after")
    for row, wordings in before.items():
        for wording, was in wordings.items():
            now = after[row][wording]
            table.add_row(row, wording, f"{was[0]:.2f}", f"{now[0]:.2f}", f"{was[1]:.3f}", f"{now[1]:.3f}")
    table.caption = f"taught in {seconds:.0f} s; loss {losses[0]:.2f} to {losses[-1]:.2f}"
    Console(width=120).print(table)
    own = [name for name in before if not name.startswith("real")]

    def mean(of: dict, what: str) -> float:
        return sum(of[name][what][0] for name in own) / len(own)

    summary = {what: [mean(before, what), mean(after, what)] for what in before[own[0]]}
    print(json.dumps({"lessons": asdict(lessons), "seconds": seconds, "loss": losses, "right": summary,
                      "before": before, "after": after}))  # fmt: skip


if __name__ == "__main__":
    main()
