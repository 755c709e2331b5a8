"""Answers that are paid for already, and the state of a subject for which they hold."""

from __future__ import annotations

from collections.abc import Mapping

from concept_probe.families import Subject
from concept_probe.types import Judge, Query, Sampling, Trial


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


def _asked(subject: Subject, recogniser: Judge, sampling: Sampling) -> tuple[object, ...]:
    return subject.stamp(), recogniser.name, recogniser.version, sampling
