"""How often a recogniser is right, and how often it sees something in clean pictures: what its other numbers can mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from concept_probe.evaluation.rates import success_rate
from concept_probe.evaluation.trials import judge_answers
from concept_probe.types import Prompt, Query, Recogniser, Score


@dataclass(frozen=True)
class RecogniserRates:
    """What a recogniser says of pictures whose content is known. Rates, with 95 % intervals."""

    accuracy: Score
    """Pictures that are named as what they show."""
    false_positives: Score
    """Of pictures without the label in question: those that are said to show it."""
    errors: Score
    """Pictures that the recogniser failed on; they are not right, and no false positives either."""


def recogniser_rates(
    recogniser: Recogniser, images: Float[Tensor, "n 3 h w"], shown: Sequence[str], label: str | None = None
) -> RecogniserRates:
    """Look at pictures that show what `shown` says (`none` for nothing).

    `label` is what false positives are of; None: any name, given to a picture that shows `none`.
    Raises ValueError where no picture is left to count false positives in.
    """
    seen = [t.seen for t in judge_answers(recogniser, images, [Query(Prompt(s, None, s)) for s in shown])]
    pairs = list(zip(seen, shown, strict=True))
    clean = [s for s, real in pairs if (real == "none" if label is None else real != label)]
    if not clean:
        raise ValueError(
            f"none of the {len(pairs)} pictures is without {label or 'a name'}, so there is no false positive to count"
        )
    named = [s == label if label is not None else s not in ("none", "error") for s in clean]
    return RecogniserRates(
        success_rate("accuracy", [s == real for s, real in pairs], better="higher"),
        success_rate(f"false positives of {label or 'any name'}", named),
        success_rate("errors", [s == "error" for s in seen]),
    )
