"""Ask in other words: synonyms, and descriptions that never use the name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from concept_probe.attack.base import Attack, ask, label_of, relabelled, shown, spread
from concept_probe.attack.budget import Attempt, Budget, Meter, succeeded, success_rate
from concept_probe.types import Concept, Query, Score

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Paraphrases(Attack):
    """The concept's test-split paraphrases and implicit prompts, asked one after the other.

    The curve is the chance that at least one of q queries, drawn at random from those asked, shows the
    concept: 1 − C(N − h, q) / C(N, q) for h hits among N. Half as many unrelated prompts, labelled with
    the concept, are the control: what is seen in them is a mistake of the recogniser.
    """

    name: ClassVar[str] = "paraphrases"
    needs_examples: ClassVar[bool] = False

    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt:
        meter = Meter(budget)
        words = (*concept.prompts("paraphrases", "test"), *concept.prompts("implicit", "test"))
        if not words:
            raise ValueError(
                f"attack {self.name!r}: concept {concept.name!r} has no paraphrases or implicit prompts to test with"
            )
        others = relabelled(concept.prompts("unrelated", "test"), label_of(concept))
        asked = budget.queries - (budget.queries // 3 if others else 0)
        trials, images = [], None
        queries = spread(words, min(asked, len(words) * 2), self.seed)
        for part in _batches(queries, self.sampling.batch):
            if meter.out_of_time():
                break
            seen, images = ask(self, subject, concept, part, meter)
            trials += seen
        random: tuple = ()
        if not meter.out_of_time():
            count = min(len(trials) // 2, budget.queries - len(trials))
            random, _ = ask(self, subject, concept, spread(others, count, self.seed), meter)
        control = success_rate("unrelated prompts", [succeeded(t) for t in random]) if random else None
        hits = [succeeded(t) for t in trials]
        curve = tuple((q, at_least_one(hits, q)) for q in doublings(len(hits)))
        last = trials[-len(images) :] if images is not None else []
        return Attempt(
            self.name,
            concept.name,
            budget,
            meter.spent(),
            "queries",
            curve,
            (tuple(trials),) if trials else (),
            control,
            shown(self, last, images),
        )


def at_least_one(hits: list[bool], q: int) -> Score:
    """Chance that q trials drawn without replacement hold a hit; its interval comes from that of the hit rate."""
    rate = success_rate("paraphrases", hits)
    missed, n = 1.0, len(hits)
    for i in range(q):
        missed *= max(0, n - sum(hits) - i) / (n - i)
    value = 1 - missed
    low, high = 1 - (1 - rate.low) ** q, 1 - (1 - rate.high) ** q
    return Score("paraphrases", value, min(low, value), max(high, value), n, "rate", "lower")


def doublings(n: int) -> list[int]:
    """1, 2, 4, ... up to n // 2 (beyond that the same few trials say everything)."""
    out = [1] if n else []
    while out and out[-1] * 2 <= n // 2:
        out.append(out[-1] * 2)
    return out


def _batches(queries: tuple[Query, ...], size: int) -> list[tuple[Query, ...]]:
    return [queries[i : i + size] for i in range(0, len(queries), size)]
