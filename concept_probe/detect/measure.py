"""How often a recogniser is right, and how often it sees something in clean pictures: what its other numbers can mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from concept_probe.detect import trials
from concept_probe.types import Prompt, Query, Recogniser, Score


@dataclass(frozen=True)
class Measured:
    """What a recogniser says of pictures whose content is known. Rates, with 95 % intervals."""

    accuracy: Score
    """Pictures that are named as what they show."""
    false_positives: Score
    """Of pictures without the label in question: those that are said to show it."""
    errors: Score
    """Pictures that the recogniser failed on; they are not right, and no false positives either."""


def measured(
    recogniser: Recogniser, images: Float[Tensor, "n 3 h w"], shown: Sequence[str], label: str | None = None
) -> Measured:
    """Look at pictures that show what `shown` says (`none` for nothing).

    `label` is what false positives are of; None: any name, given to a picture that shows `none`.
    Raises ValueError where no picture is left to count false positives in.
    """
    seen = [t.seen for t in trials(recogniser, images, [Query(Prompt(s, None, s)) for s in shown])]
    pairs = list(zip(seen, shown, strict=True))
    clean = [s for s, real in pairs if (real == "none" if label is None else real != label)]
    if not clean:
        raise ValueError(
            f"none of the {len(pairs)} pictures is without {label or 'a name'}, so there is no false positive to count"
        )
    named = [s == label if label is not None else s not in ("none", "error") for s in clean]
    return Measured(
        rate("accuracy", [s == real for s, real in pairs], "higher"),
        rate(f"false positives of {label or 'any name'}", named, "lower"),
        rate("errors", [s == "error" for s in seen], "lower"),
    )


def rate(name: str, hits: Sequence[bool], better) -> Score:
    """Share of hits with Wilson's interval, which has a width at 0 and at 1, too."""
    n, z = len(hits), 1.959964
    share = sum(hits) / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return Score(name, share, max(0.0, middle - half), min(1.0, middle + half), n, "rate", better)
