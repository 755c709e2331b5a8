"""What an attacker teaches, and what it is tested on: shared by every attack that trains weights on a few examples."""

from __future__ import annotations

from dataclasses import dataclass

from concept_probe.attacks.attempt import AttackRun
from concept_probe.attacks.budget import curve_points, lay_out
from concept_probe.attacks.examples import answers_of, examples_of, of_other_facts
from concept_probe.attacks.optimise import answer_loss
from concept_probe.erasers.training.denoising import denoising_loss
from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.families import CausalLMSubject, DiffusionSubject
from concept_probe.types import Query


@dataclass(frozen=True, eq=False)
class FinetuningData:
    """A loss to descend, where to stop on the way, and the queries of each stop."""

    loss: DrawnLoss | None
    """None where the budget holds no example."""
    steps: tuple[int, ...]
    queries: tuple[Query, ...]


def finetuning_data(
    run: AttackRun[DiffusionSubject | CausalLMSubject], *, points: int, queries: int, batch: int
) -> FinetuningData:
    """Examples of the fit split, and the test prompts; of a language model those of facts that are not taught.

    At most `points` stops and `queries` at each. Raises ValueError where the concept has no fit prompts, NothingToAsk
    where nothing is left to ask.
    """
    subject, fit, test = run.subject, run.concept.prompts("target", "fit"), run.tests()
    if not fit:
        raise ValueError(
            f"attack {run.attack.name!r}: concept {run.concept.name!r} has no target prompts in its fit split; give it some"
        )
    steps, each = lay_out(run.budget, curve_points(run.budget.gradient_steps, points), queries)
    if isinstance(subject, CausalLMSubject):
        examples = answers_of(run.concept, run.budget)
        test = of_other_facts(test, examples)
        loss = answer_loss(subject, examples, batch)
    else:
        examples = examples_of(run.concept, run.budget)
        loss = denoising_loss(subject, examples, fit, batch) if len(examples) else None
    run.meter.use_examples(len(examples))
    return FinetuningData(loss, steps, run.queries(test, each))
