"""Whether an audit asks in rounds, and what it may cost: the options of `audit` and `run`, and what follows where none is given."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from concept_probe.cli.console import err

if TYPE_CHECKING:
    from concept_probe.auditing.rounds.limits import AuditRounds
    from concept_probe.types import Concept

Looks = Annotated[
    int | None,
    typer.Option(
        "--rounds", min=1,
        help="Ask in at most so many rounds: first a little of everything, then only of what is in doubt. The other numbers are "
        "then the most, and twice as many prompts are allowed. Default: 3 for pictures, where enough test prompts name the concept.",
    ),
]  # fmt: skip
AtOnce = Annotated[bool, typer.Option("--at-once", help="Ask everything at once, whatever is in doubt.")]
MostPictures = Annotated[
    int | None,
    typer.Option("--max-pictures", min=1, help="The most pictures, or texts, of all models together; asks in rounds."),
]
MostSeconds = Annotated[
    float | None,
    typer.Option("--max-seconds", min=0, help="Begin no round that would end later than this; asks in rounds."),
]


def rounds_of(
    looks: int | None,
    pictures: int | None,
    seconds: float | None,
    at_once: bool,
    concept: Concept,
    prompts: int | None,
    answers: str,
) -> AuditRounds | None:
    """What an audit may cost and how often it looks; None where it asks everything at once. `prompts` is how many it may ask.

    Where nothing was said, pictures are asked for in rounds if so many prompts name the concept that rounds could say
    "erased", and texts, on which rounds were not calibrated, at once. ValueError for a ceiling on what is asked at once.
    """
    from concept_probe.auditing.rounds.limits import AuditRounds
    from concept_probe.auditing.verdict import Thresholds
    from concept_probe.evaluation.looks import fewest_without_a_hit

    given = {"--rounds": looks, "--max-pictures": pictures, "--max-seconds": seconds}
    asked = [name for name, value in given.items() if value is not None]
    if at_once and asked:
        raise ValueError(f"--at-once asks everything, and {asked[0]} is of rounds: give one of the two")
    if at_once:
        return None
    rounds = AuditRounds(looks or AuditRounds.looks, pictures, math.inf if seconds is None else seconds)
    if asked:
        return rounds
    if answers != "pictures":
        return None
    needed, there = (
        fewest_without_a_hit(rounds.errors[-1], Thresholds.residual),
        min(len(concept.target.test), prompts or math.inf),
    )
    if there < needed:
        err.print(
            f"asked at once: {there} test prompts that name {concept.name!r}, and rounds need {needed} to say 'erased'",
            markup=False, soft_wrap=True,
        )  # fmt: skip
        return None
    return rounds
