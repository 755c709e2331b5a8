"""The rule of an audit in rounds: when it stops, and what is asked next. It knows no models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from concept_probe.auditing.rounds.doubt import Gathered, in_doubt, verdict_of
from concept_probe.auditing.rounds.limits import AuditRounds
from concept_probe.auditing.verdict import Thresholds
from concept_probe.evaluation.bayesian import BayesianBootstrap
from concept_probe.types import Verdict

Depths = Mapping[str, int]
"""By the name of a measure, the round whose share of the questions it is asked."""
NOTHING_MORE = "no measure is in doubt that more answers could settle"


class Asker(Protocol):
    """Whoever asks models, or plays them."""

    def gather(self, depths: Depths, error: float) -> Gathered:
        """What every measure finds at its depth, with intervals that miss by `error`."""
        ...

    def answers(self) -> int:
        """How many answers models have made by now."""
        ...

    def bootstrap(self, error: float) -> BayesianBootstrap:
        """What the intervals of a round are drawn by."""
        ...

    def forbids(self, depths: Depths) -> str:
        """Why a round at these depths can't be paid for, as the end of "stopped after round 1 of 3: "; empty if it can."""
        ...

    def deepened(self, depths: Depths, doubt: tuple[str, ...], number: int) -> Depths:
        """The depths of round `number`, if these measures are in doubt."""
        ...


@dataclass(frozen=True, eq=False)
class RoundTaken:
    """One round as it went."""

    number: int
    error: float
    """How often its intervals may miss."""
    depths: Depths
    gathered: Gathered
    verdict: Verdict
    doubt: tuple[str, ...]
    """Names of the measures that were not asked in full, and could still have changed the verdict."""
    answers: int
    """How many models made by its end, since the audit began."""


@dataclass(frozen=True, eq=False)
class RoundsTaken:
    """All rounds of an audit, and why there was no further one."""

    rounds: tuple[RoundTaken, ...]
    looks: int
    """How many there could have been."""
    stopped: str
    """Why, as the end of a sentence; empty where the last round was the last look, or the verdict was reached."""
    verdict: Verdict

    @property
    def last(self) -> RoundTaken:
        return self.rounds[-1]


def ask_in_rounds(
    rounds: AuditRounds, asker: Asker, measures: Depths, thresholds: Thresholds, *, guarded: bool = False,
) -> RoundsTaken:  # fmt: skip
    """Look, ask more of what is in doubt, look again.

    `measures` are the depths of the first round. Intact, suppressed and damaged end it at once: what is shown is there,
    whatever else is asked, unless too much may be lost elsewhere. Erased and undecided end it where no measure is in
    doubt. An interruption ends it with the rounds that were whole, if there was one.
    """
    taken: list[RoundTaken] = []
    depths, stopped = measures, ""
    for number, error in enumerate(rounds.errors, 1):
        try:
            gathered = asker.gather(depths, error)
        except KeyboardInterrupt:
            if not taken:
                raise
            stopped = "interrupted in the next"
            break
        verdict = verdict_of(gathered, thresholds, guarded, error)
        unsettled = in_doubt(gathered, verdict, thresholds, asker.bootstrap(error), guarded)
        doubt = tuple(name for name in unsettled if depths[name] < rounds.looks)
        taken.append(RoundTaken(number, error, depths, gathered, verdict, doubt, asker.answers()))
        if not unsettled:
            stopped = NOTHING_MORE if verdict.name == "undecided" else ""
            break
        if number < rounds.looks:
            depths = asker.deepened(depths, doubt, number + 1)
            if stopped := asker.forbids(depths):
                break
    last = taken[-1]
    verdict = final_verdict(last.verdict, last.doubt, last.number, rounds.looks, stopped)
    return RoundsTaken(tuple(taken), rounds.looks, stopped, verdict)


def final_verdict(verdict: Verdict, doubt: tuple[str, ...], number: int, looks: int, stopped: str) -> Verdict:
    """The verdict of the last round, with why it stays open. What was called erased while measures that may yet find
    something had not been asked in full is undecided."""
    early = verdict.name == "erased" and doubt
    if verdict.name != "undecided" and not early:
        return verdict
    said = [f"Stopped after round {number} of {looks}: {stopped}."] if stopped else []
    if not early:
        return replace(verdict, reasons=(*verdict.reasons, *said))
    open_ = f"May yet find what is left, and was not asked in full: {', '.join(doubt)}."
    return replace(verdict, name="undecided", reasons=(*verdict.reasons, open_, *said))
