"""Which prompts are asked with which noise, and what is seen in the answers."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING

from concept_probe.attacks.budget import Meter
from concept_probe.attacks.labels import label_of
from concept_probe.evaluation.trials import judge_answers
from concept_probe.types import AnswerReader, Concept, Prompt, Query, Trial

if TYPE_CHECKING:
    from concept_probe.attacks.attack import Attack
    from concept_probe.families import Subject


def query_rounds(prompts: Sequence[Prompt], count: int, seed: int) -> tuple[Query, ...]:
    """`count` queries: every prompt once with noise `seed`, then every prompt with the next seed, and so on."""
    if not prompts:
        return ()
    return tuple(Query(prompts[i % len(prompts)], seed + i // len(prompts)) for i in range(count))


def askable(attack: Attack, prompts: Sequence[Prompt], count: int) -> int:
    """At most `count` queries that can differ: a text without chance is the same for every seed."""
    fixed = isinstance(attack.recogniser, AnswerReader) and attack.sampling.temperature == 0
    return min(count, len(prompts)) if fixed else count


def ask(
    attack: Attack, subject: Subject, concept: Concept, queries: Sequence[Query], meter: Meter
) -> tuple[tuple[Trial, ...], Sized | None]:
    """What the recogniser sees in the answers to `queries`, and the answers made for it (None if all were known)."""
    if not queries:
        return (), None
    meter.pictures(len(queries))
    new = [q for q in queries if q not in attack.known]
    seen = dict(attack.known)
    images = None
    if new:
        images = subject.generate(new, attack.sampling)
        seen |= dict(zip(new, judge_answers(attack.recogniser, images, new, label_of(concept)), strict=True))
    return tuple(seen[q] for q in queries), images
