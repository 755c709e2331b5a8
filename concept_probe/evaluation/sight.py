"""Whether a recogniser sees a concept in what the untouched model draws: measured before anything relies on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from concept_probe.evaluation.rates import success_rate
from concept_probe.evaluation.trials import judge_answers
from concept_probe.types import Concept, Judge, Prompt, Query, Score, evenly

PICTURES = 16
"""Of each side."""
MOST_CHANCE = 0.05
"""The most that chance may give as clear a difference."""


class CannotSee(ValueError):
    """A recogniser that doesn't tell a concept from other things in a model's pictures."""


@dataclass(frozen=True)
class Sight:
    """What a recogniser says of pictures that were asked for by name. Rates, with 95 % intervals."""

    label: str
    seen: Score
    """Of pictures of the target prompts: those in which it sees the label."""
    mistaken: Score
    """Of pictures of neighbours and unrelated prompts: those in which it sees the label."""
    chance: float
    """Probability that pictures which all look alike to it would differ as clearly (Fisher's exact test, one side)."""

    def __str__(self) -> str:
        def said(s: Score) -> str:
            return f"{s.value:.0%} [{s.low:.0%}, {s.high:.0%}] of {s.n}"

        return f"{self.label!r} seen where asked for in {said(self.seen)} pictures, elsewhere in {said(self.mistaken)}"

    @property
    def blind(self) -> bool:
        """Whether it sees the label no more surely in pictures that were asked for it."""
        return self.chance > MOST_CHANCE

    def refuse_blind(self, name: str, mend: str) -> None:
        """Raise CannotSee, with the mend, where it is blind to the concept."""
        if self.blind:
            raise CannotSee(
                f"recogniser {name!r} can't tell the concept in pictures of the untouched model: {self}; nothing measured by it "
                f"would say whether the concept is gone. {mend}"
            )


def sight_queries(concept: Concept, pictures: int = PICTURES, seed: int = 0) -> tuple[Query, ...]:
    """`pictures` queries for the concept by its select prompts, then as many for neighbours and unrelated things.

    ValueError where the concept has no such prompts.
    """
    own = tuple(concept.prompts("target", "select"))
    others = (*concept.prompts("neighbours", "select"), *concept.prompts("unrelated", "select"))
    if not own or not others:
        raise ValueError(
            f"concept {concept.name!r} has {len(own)} target and {len(others)} other prompts in its select split, so what a "
            "recogniser sees can't be measured; add prompts to target and to neighbours or unrelated"
        )
    return (*_queries(own, pictures, seed), *_queries(others, pictures, seed))


def sight(
    recogniser: Judge, images: Float[Tensor, "n 3 h w"] | Sequence[str], queries: Sequence[Query], concept: Concept
) -> Sight:
    """Look at the untouched subject's pictures, or read its texts, of `sight_queries`.

    >>> asked = sight_queries(concept)
    >>> sight(recogniser, subject.generate(asked), asked, concept)
    """
    trials = judge_answers(recogniser, images, queries, concept.label)
    hits = [t.seen == concept.label for t in trials]
    first, second = hits[: len(hits) // 2], hits[len(hits) // 2 :]
    return Sight(
        concept.label,
        success_rate(f"{concept.label} seen", first, better="higher"),
        success_rate(f"{concept.label} seen in others", second),
        fisher(sum(first), len(first), sum(second), len(second)),
    )


def _queries(prompts: tuple[Prompt, ...], count: int, seed: int) -> list[Query]:
    """`count` queries: prompts evenly, then again with another seed."""
    chosen = evenly(prompts, count)
    return [Query(chosen[i % len(chosen)], seed + i // len(chosen)) for i in range(count)]


def fisher(hits: int, n: int, others: int, m: int) -> float:
    """Probability of at least `hits` of `n`, where `hits` + `others` of n + m fall by chance.

    >>> round(fisher(4, 16, 0, 16), 3)
    0.051
    """
    whole = hits + others
    ways = sum(math.comb(n, k) * math.comb(m, whole - k) for k in range(hits, min(n, whole) + 1) if whole - k <= m)
    return ways / math.comb(n + m, whole)
