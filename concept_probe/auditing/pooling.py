"""Many noisy indices of one kind of evidence: what they say together, and where one of them stands out.

The largest of many numbers is large by chance. So each index is drawn towards the mean of its kind, as far as the
differences between them are no larger than chance makes them (empirical Bayes; Efron and Morris 1975), and a place is said
to hold the concept only where that would stand if every place had been asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, pvariance

from concept_probe.evaluation.intervals import USUAL_ERROR, deviate
from concept_probe.types import Score


def pooled_index(name: str, scores: Sequence[Score]) -> Score:
    """The mean of indices, with the mean of their intervals; n is that of the one with the fewest samples.

    Places share prompts, so their errors go together: the interval is that of errors that agree wholly, the widest that a
    mean can have. Raises ValueError for no index.
    """
    if not scores:
        raise ValueError(f"{name}: there is no index to pool")
    value, low, high = (fmean(getattr(s, end) for s in scores) for end in ("value", "low", "high"))
    return replace(scores[0], name=name, value=value, low=low, high=high, n=min(s.n for s in scores))


def shrunk_indices(scores: Sequence[Score], error: float = USUAL_ERROR) -> tuple[Score, ...]:
    """Each index drawn towards the mean of all: m + B (x − m), B = τ² / (τ² + σ²).

    σ² is an index's own variance, read off its interval; τ² = max(0, var(x) · k/(k − 1) − mean σ²) is what the k places
    differ by beyond chance. Intervals, which miss by `error`, move along, and keep the width of what they are made of. One
    index alone stays.
    """
    if len(scores) < 2:
        return tuple(scores)
    mean = pooled_index("", scores)
    own = [((s.high - s.low) / (2 * deviate(error))) ** 2 for s in scores]
    between = max(0.0, pvariance([s.value for s in scores]) * len(scores) / (len(scores) - 1) - fmean(own))
    out = []
    for s, variance in zip(scores, own, strict=True):
        share = 1.0 if variance == 0 else between / (between + variance)
        value, low, high = (
            getattr(mean, end) + share * (getattr(s, end) - getattr(mean, end)) for end in ("value", "low", "high")
        )
        out.append(replace(s, value=value, low=low, high=high))
    return tuple(out)


def surely_above(score: Score, edge: float, places: int, error: float = USUAL_ERROR) -> bool:
    """Whether an index, whose interval misses by `error`, is above `edge` at half of that for all `places` of its kind
    together (Bonferroni)."""
    wider = NormalDist().inv_cdf(1 - error / 2 / max(1, places)) / deviate(error)
    return score.value - wider * (score.value - score.low) > edge


@dataclass(frozen=True)
class WeighedKind:
    """What the indices of one kind of evidence say on the question whether anything is above an edge."""

    whole: Score
    """All of them pooled."""
    places: tuple[Score, ...]
    """Each, drawn towards the mean of all."""
    kept: tuple[Score, ...]
    """Those that are surely above, as they were measured."""
    kept_whole: bool
    """Whether the mean is, and is not one of those."""
    unsure: tuple[Score, ...]
    """The mean, and places, that may be above and are not surely so."""

    @classmethod
    def of(cls, kind: str, scores: Sequence[Score], edge: float, error: float = USUAL_ERROR) -> WeighedKind:
        """Of the indices of one kind, whose intervals miss by `error`. ValueError for none."""
        name = scores[0].name if len(scores) == 1 else f"{kind}, the mean of {len(scores)} indices"
        whole, places = pooled_index(name, scores), shrunk_indices(scores, error)
        kept = tuple(s for s in scores if surely_above(s, edge, len(scores), error))
        known = {s.name for s in kept}
        kept_whole = whole.low > edge and whole.name not in known
        known |= {whole.name} if kept_whole else set()
        open_ = [s for s in (whole,) if s.high >= edge]
        open_ += [s for s in places if s.value >= edge and len(places) > 1]  # a lone one is the whole
        return cls(whole, places, kept, kept_whole, tuple(s for s in open_ if s.name not in known))
