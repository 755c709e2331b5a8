"""Answers that are paid for already, and the state of a subject for which they hold."""

from __future__ import annotations

from collections.abc import Mapping

from concept_probe.families import Subject
from concept_probe.types import Judge, Picture, Query, Sampling, Trial


class AnswerCache:
    """What a subject answered as it is now, and what a recogniser saw in it.

    It is asked with the subject at hand, and knows nothing once weights, taps or hooks have changed since, or where
    answers are made or judged in another way.

    >>> with erasure.on(subject):
    ...     known = AnswerCache(subject, recogniser, sampling, {t.query: t for t in trials})
    ...     attempt = attack(subject, concept, budget, known)
    """

    def __init__(self, subject: Subject, recogniser: Judge, sampling: Sampling, trials: Mapping[Query, Trial]) -> None:
        self._trials = dict(trials)
        self._holds_for = _asked(subject, recogniser, sampling)

    def known(self, subject: Subject, recogniser: Judge, sampling: Sampling) -> Mapping[Query, Trial]:
        """By query, what is known of the subject as it is at this moment."""
        return self._trials if self._holds_for == _asked(subject, recogniser, sampling) else {}


class AskedBefore:
    """What an attack asked when it was run before, for less: where it comes through the same states again, what was
    answered in a state needs no second answer.

    >>> earlier = AskedBefore()
    >>> few = attack(subject, concept, Budget(queries=40), earlier=earlier)
    >>> more = attack(subject, concept, Budget(queries=80), earlier=earlier)
    """

    def __init__(self) -> None:
        self.made = 0
        """Answers that were made, over all runs."""
        self.pictures: tuple[Picture, ...] = ()
        """A few of the first run: later ones make some of them alone."""
        self._in: dict[str, dict[Query, Trial]] = {}

    def answers(self, state: str) -> dict[Query, Trial]:
        """Those that were given in a state; whoever asks more there adds it."""
        return self._in.setdefault(state, {})


def _asked(subject: Subject, recogniser: Judge, sampling: Sampling) -> tuple[object, ...]:
    return subject.stamp(), recogniser.name, recogniser.version, sampling
