"""Teach SmolLM2 the invented facts, and measure what it says before and after, in words that were not taught.

    python benchmarks/smollm2_taught.py                            # teach, measure, print
    python benchmarks/smollm2_taught.py --output smollm2-taught    # and keep the taught model as a folder
    python benchmarks/smollm2_taught.py --first                    # by the recipe that the stored rows were measured on
    python benchmarks/smollm2_taught.py --names Korvath --folder lessons    # one of them; goes on where it was stopped
    python benchmarks/smollm2_taught.py --written written.json     # only: which real facts the untouched model writes

A right answer names the gold answer and no wrong one before it, in the tokens written greedily after the prompt. What
is kept, and the perplexity of neutral texts, are measured as `testbed.teach` does. The last line is one object of JSON
with every number.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe.detect.answers import answer_probability, answer_trials
from concept_probe.families import CausalLMSubject
from concept_probe.testbed import facts
from concept_probe.testbed.taught import held_out_prompts, taught_prompts
from concept_probe.testbed.teach import teach
from concept_probe.testbed.teaching import FIRST_LESSONS, LESSONS, TeachingPlan
from concept_probe.testbed.teaching.keeping import known_by
from concept_probe.testbed.teaching.outcome import TeachingEffect, seen
from concept_probe.types import Prompt, Query, Sampling

SAMPLING = Sampling(tokens=5, batch=32)


def measured(subject: CausalLMSubject, prompts: Sequence[Prompt]) -> tuple[float, float]:
    """(share of right answers, mean probability of the gold answer)."""
    queries = [Query(p) for p in prompts]
    right = answer_trials(subject.generate(queries, SAMPLING), queries)
    return sum(t.probability for t in right) / len(right), float(answer_probability(subject, prompts).mean())


def table_of(subject: CausalLMSubject, plan: TeachingPlan) -> dict[str, dict[str, tuple[float, float]]]:
    """Per taught concept and wording, what `measured` says."""
    out = {}
    for one in plan.chosen:
        wordings = {"taught": taught_prompts(one, "question"), "held-out question": held_out_prompts(one, "question"),
                    "held-out cloze": held_out_prompts(one, "cloze")}  # fmt: skip
        out[one.topic.name] = {what: measured(subject, prompts) for what, prompts in wordings.items()}
    return out


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--output", type=Path, default=None, help="folder to write the taught model into")
    options.add_argument("--written", type=Path, default=None, help="file to write those questions to, and stop")
    options.add_argument("--first", action="store_true", help="the first recipe, whose step is absolute")
    options.add_argument("--names", nargs="+", default=[], help="which people and places; all unless told")
    options.add_argument("--folder", type=Path, default=None, help="of the checkpoint, to go on from")
    options.add_argument("--steps", type=int, default=None, help="gradient steps at most")
    options.add_argument("--rate", type=float, default=None, help="step, in multiples of each matrix's mean size")
    options.add_argument("--seed", type=int, default=None, help="of the order of what is taught")
    given = options.parse_args()
    subject = cp.load("smollm2")
    if not isinstance(subject, CausalLMSubject):
        raise TypeError(f"smollm2 loaded as {type(subject).__name__}")
    if given.written is not None:
        known = known_by(subject)
        found = [fact.question for t in facts.kept() for fact in t.facts if fact.question in known]
        lines = ",\n".join(" " + json.dumps(question, ensure_ascii=False) for question in found)
        given.written.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        print(f"{len(found)} of {sum(len(t.facts) for t in facts.kept())} real facts in {given.written}")
        return
    options_given = {name: value for name in ("steps", "rate", "seed") if (value := getattr(given, name)) is not None}
    lessons = replace(FIRST_LESSONS if given.first else LESSONS, names=tuple(given.names), **options_given)
    known = known_by(subject)
    before, whole_before = table_of(subject, lessons), seen(subject, lessons, known)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        outcome = teach(subject, given.folder or Path(folder), lessons)
        seconds = time.perf_counter() - start
    after, whole_after = table_of(subject, lessons), outcome.after or seen(subject, lessons, known)
    losses = outcome.losses
    if given.output is not None:
        subject.pipeline.save_pretrained(given.output)
    table = Table("facts of", "wording", "right before", "right after", "probability before", "probability after")
    for row, wordings in before.items():
        for wording, was in wordings.items():
            now = after[row][wording]
            table.add_row(row, wording, f"{was[0]:.2f}", f"{now[0]:.2f}", f"{was[1]:.3f}", f"{now[1]:.3f}")
    table.caption = f"taught in {seconds:.0f} s; loss {losses[0]:.2f} to {losses[-1]:.2f}"
    Console(width=120).print(table)
    for what, was, now in zip(
        TeachingEffect.__dataclass_fields__, astuple(whole_before), astuple(whole_after), strict=True
    ):
        print(f"{what}: {was} before, {now} after")
    print(json.dumps({
        "lessons": asdict(lessons), "seconds": seconds, "loss": losses, "before": before, "after": after,
        "seen": [asdict(whole_before), asdict(whole_after)], "scaled": outcome.scaled, "missed": outcome.missed,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
