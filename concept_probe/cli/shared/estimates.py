"""What a verb would take: answers at most, seconds by some that were timed, memory and disk. Said by --estimate, before anything runs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from concept_probe.cli.console import out

if TYPE_CHECKING:
    from concept_probe.auditing import AuditPlan
    from concept_probe.evaluation.selection import Selection
    from concept_probe.families import Subject
    from concept_probe.types import Concept, Sampling

EstimateOnly = Annotated[
    bool, typer.Option("--estimate", help="Say what it would take in seconds, memory and disk, and do nothing else.")
]
TIMED = 8
"""Answers that are timed, after one that warms up."""
BACKWARD = 3
"""What a pass with gradients costs, in passes without."""
LEARNED_ON = 4
"""Latents, or texts, of one gradient step, where a method doesn't say."""
REPORT_BYTES = 20_000_000
"""Of a report with its pictures and observations, at the usual size."""


@dataclass(frozen=True)
class Work:
    """A part of what a verb does."""

    what: str
    answers: int = 0
    """At most."""
    gradient_steps: int = 0
    seconds: float = 0.0
    """Beside answers and steps."""
    disk: int = 0
    """Bytes that stay, or lie there for a while."""
    memory: int = 0
    """Bytes beyond those of the model while it answers."""


@dataclass(frozen=True)
class WorkEstimate:
    """All parts together, as one subject would do them here."""

    parts: tuple[Work, ...]
    each: float
    """Seconds for an answer."""
    step: float
    """Seconds for a gradient step."""
    held: int
    """Bytes that were held at most while the timed answers were made, the model among them."""
    free: int
    """Bytes free on the disk."""
    of: str
    """`pictures` or `texts`."""

    @property
    def seconds(self) -> float:
        """Of all parts."""
        return sum(self.of_part(p) for p in self.parts)

    def of_part(self, part: Work) -> float:
        """Seconds of one."""
        return part.seconds + part.answers * self.each + part.gradient_steps * self.step

    def lines(self) -> Iterable[str]:
        """In words, one line for each part and one for all."""
        for part in self.parts:
            counts = [f"{part.answers:,} {self.of}"] if part.answers else []
            counts += [f"{part.gradient_steps:,} gradient steps"] if part.gradient_steps else []
            yield f"{part.what}: {'at most ' + ', '.join(counts) + ', ' if counts else ''}{self.of_part(part):.0f} s"
        memory, disk = self.held + max(p.memory for p in self.parts), sum(p.disk for p in self.parts)
        yield (
            f"about {self.seconds:.0f} s, {memory / 1e9:.2f} GB of memory, {disk / 1e9:.2f} GB on disk "
            f"({self.free / 1e9:.1f} GB free); {self.each:.3g} s for one of the {self.of}"
        )


def say_estimate(subject: Subject, sampling: Sampling, parts: Iterable[Work], place: Path | None = None) -> None:
    """Time a few answers of the subject, print what `parts` would take, and leave with status 0."""
    for line in work_estimate(subject, sampling, tuple(parts), place).lines():
        out.print(line, highlight=False, soft_wrap=True)
    raise typer.Exit


def work_estimate(
    subject: Subject, sampling: Sampling, parts: tuple[Work, ...], place: Path | None = None
) -> WorkEstimate:
    """What `parts` take, by a few answers that are made now; `place` is on the disk that is written to."""
    import shutil

    answers = any(p.answers or p.gradient_steps for p in parts)
    each = _seconds_each(subject, sampling) if answers else 0.0
    passes = 1 if subject.answers == "texts" else 2 * sampling.steps  # with guidance
    there = Path(tempfile.gettempdir()) if place is None else place.absolute()
    while not there.exists():
        there = there.parent
    return WorkEstimate(
        parts, each, each / passes * LEARNED_ON * BACKWARD, _held(), shutil.disk_usage(there).free, subject.answers
    )


def _seconds_each(subject: Any, sampling: Sampling) -> float:
    from concept_probe.types import Prompt, Query

    count = min(TIMED, sampling.batch)
    subject.generate([Query(Prompt("a"), 0)], sampling)
    start = time.perf_counter()
    subject.generate([Query(Prompt("a"), seed) for seed in range(count)], sampling)
    return (time.perf_counter() - start) / count


def _held() -> int:
    """The most memory that this process held so far, in bytes; of a CUDA device its own beside."""
    import resource
    import sys

    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return own + (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)


def attack_work(name: str, queries: int, steps: int) -> Work:
    """One attack with its control, which share the budget of answers."""
    return Work(name, queries, gradient_steps=2 * steps)


def find_work(subject: Any, concept: Concept, role: Any, selection: Selection) -> Work:
    """Looking for vectors: how many are removed at a time, each time beside a matched random removal, by every ranking."""
    from concept_probe.find.vectors.search import vector_candidates

    removals = sum(2 * len(c.counts) + 1 for c in vector_candidates(subject, concept, role))
    return Work(f"{removals} removals, measured", removals * selection.images * 7 // 3)


def features_work(subject: Subject, concept: Concept, sampling: Sampling, saes: Any) -> list[Work]:
    """Reading the concept's prompts where autoencoders are."""
    from concept_probe.activations import estimate_capture
    from concept_probe.types import KINDS

    prompts = [p for kind in KINDS for split in ("fit", "select") for p in concept.prompts(kind, split)]
    sites = list(dict.fromkeys(sae.site for sae in saes))
    expected = estimate_capture(subject, prompts, sites=sites, sampling=sampling)
    return [Work("reading the concept's prompts", seconds=expected.seconds, memory=expected.bytes)]


def audit_work(plan: AuditPlan, subject: Subject, concept: Concept, arms: int) -> list[Work]:
    """An audit's parts; `arms` are the models that it asks: before, after, and a twin."""
    others = plan.prompts if plan.even or plan.rounds is not None else plan.prompts * 2 // 3
    prompts = {
        "target": plan.prompts, "paraphrases": others, "implicit": others,
        "neighbours": plan.prompts, "unrelated": plan.prompts,
    }  # fmt: skip
    asked = sum(min(n, len(getattr(concept, kind).test)) for kind, n in prompts.items()) * len(plan.seeds)
    inner = 0 if subject.answers == "texts" else 2 * plan.fit_images
    attacks = len(plan.attacks_on(subject))
    return [
        Work("audit", (asked + inner) * arms, disk=REPORT_BYTES),
        Work(f"{attacks} attacks and their controls", 2 * attacks * plan.budget.queries,
             gradient_steps=2 * attacks * plan.budget.gradient_steps),
    ]  # fmt: skip


def eraser_work(eraser: Any, selection: Selection | None, autoencoders: int = 1) -> list[Work]:
    """Making an erasure: what it learns, and what is measured where something is chosen (`selection`)."""
    kind = type(eraser)
    training = getattr(eraser, "training", eraser)
    steps, drawn = getattr(training, "steps", 0), getattr(training, "pictures", 0)
    learned = (
        [Work(f"learning, {kind.__name__}", 3 * drawn, gradient_steps=steps)]
        if isinstance(steps, int) and steps
        else []
    )
    if selection is None:
        return [*learned, Work("what the erasure changes, before and under it", 48)]
    return [*learned, choice_work(selection, autoencoders)]


def choice_work(selection: Selection, autoencoders: int) -> Work:
    """A choice among mixes: a quick look at each, a careful one at the best, each beside the untouched."""
    from concept_probe.erasers.select.choose import FEWER_STEPS, FINALISTS
    from concept_probe.erasers.select.features import FeatureMixes

    mixes = FeatureMixes()
    tried = max(autoencoders, 1) * len(mixes.counts) * len(mixes.strengths) * len(mixes.formulas)
    quick = -(-selection.screening * 7 // 3) // FEWER_STEPS
    return Work(f"choosing among {tried}", (tried + 1) * quick + (FINALISTS + 1) * selection.images * 7 // 3)
