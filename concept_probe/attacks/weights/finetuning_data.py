"""What an attacker teaches, and what it is tested on: shared by every attack that learns from a few examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.budget import Meter, lay_out
from concept_probe.attacks.examples import answers_of, examples_of, of_other_facts
from concept_probe.attacks.labels import label_of, relabelled
from concept_probe.attacks.optimise import DrawnLoss, answer_loss, denoising
from concept_probe.attacks.queries import askable, query_rounds
from concept_probe.detect.answers import Continues
from concept_probe.types import Concept, Query

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class FinetuningData:
    """A loss to descend, where to stop on the way, and the queries of each stop."""

    loss: DrawnLoss | None
    """None where the budget holds no example."""
    steps: tuple[int, ...]
    queries: tuple[Query, ...]


def finetuning_data(
    attack: Attack, subject: Subject, concept: Concept, meter: Meter, *, points: int, pictures: int, batch: int
) -> FinetuningData:
    """Examples of the fit split, and the test prompts; of a language model those of facts that are not taught.

    Raises ValueError where the concept has no fit prompts or no examples, NothingToAsk where nothing is left to ask.
    """
    budget, fit = meter.budget, concept.prompts("target", "fit")
    if not fit:
        raise ValueError(f"attack {attack.name!r}: concept {concept.name!r} has no target prompts in its fit split")
    test = relabelled(concept.prompts("target", "test"), label_of(concept))
    steps, each = lay_out(budget, points, pictures)
    if isinstance(subject, Continues):
        examples = answers_of(concept, budget, attack.name)
        test = of_other_facts(test, examples)
        loss = answer_loss(subject, examples, batch) if examples else None
    else:
        examples = examples_of(concept, budget, attack.name)
        loss = denoising(subject, examples, fit, batch)
    meter.use_examples(len(examples))
    return FinetuningData(loss, steps, query_rounds(test, askable(attack, test, each), attack.seed))
