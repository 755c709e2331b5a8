"""Audits in rounds: the stopping rule on played evidence, and what is asked of tiny models."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch

from concept_probe.auditing import AuditRounds
from concept_probe.auditing.evidence.behaviour import DETECTION, RECOGNITION
from concept_probe.auditing.evidence.finding import Evidence, Metric, compare
from concept_probe.auditing.rounds.doubt import Gathered
from concept_probe.auditing.rounds.schedule import Depths, ask_in_rounds, final_verdict
from concept_probe.auditing.verdict import Thresholds
from concept_probe.evaluation.bayesian import BayesianBootstrap, damage_score, residual_index
from concept_probe.evaluation.looks import draws_for
from concept_probe.types import Verdict

NAMED, RECOVERED, KEPT = "prompts that name it", "recovery", "what is to be kept"
FIRST: Depths = {NAMED: 1, RECOVERED: 1, KEPT: 1}
TOLERATED = 0.02 + Thresholds().residual * 0.93
"""The rate that is as much as may be left, of 0.95 before and 0.02 never taught."""


class Naive(AuditRounds):
    """The same looks, each at the whole error."""

    @property
    def errors(self) -> tuple[float, ...]:
        return (0.05,) * self.looks


@dataclass(eq=False)
class Played:
    """Evidence whose truth is known, of at most `prompts` prompts with two seeds: what attacks recover is shown at
    `recovered`, and the seeds of a prompt agree, or do not."""

    seed: int
    recovered: float
    named: float | None = None
    """Detection by name; None: as in the model that was never taught, to the bit."""
    agree: bool = True
    careful: bool = True
    lost: float = 0.0
    """Share of neighbours, known exactly."""
    looks: int = 3
    prompts: int = 24
    depths: list[Depths] = field(default_factory=list)
    interrupt: int = 0
    """The round in which somebody interrupts."""

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)

        def hits(rate: float, agree: bool = False):
            drawn = torch.rand(self.prompts, 1 if agree else 2, generator=generator) < rate
            return drawn.float().expand(self.prompts, 2)

        self.recovery = hits(0.95), hits(self.recovered, self.agree), hits(0.02)
        self.by_name = None if self.named is None else (hits(0.95), hits(self.named, self.agree), hits(0.02))

    def answers(self) -> int:
        return sum(max((d[name] for d in self.depths), default=0) for name in FIRST)

    def bootstrap(self, error: float) -> BayesianBootstrap:
        return BayesianBootstrap(max(1000, draws_for(error)), self.seed, error, self.careful)

    def forbids(self, depths: Depths) -> str:
        return ""

    def deepened(self, depths: Depths, doubt: tuple[str, ...], number: int) -> Depths:
        return {name: number if name in doubt else depth for name, depth in depths.items()}

    def gather(self, depths: Depths, error: float) -> Gathered:
        self.depths.append(depths)
        if len(self.depths) == self.interrupt:
            raise KeyboardInterrupt
        bootstrap = self.bootstrap(error)

        def index(metric: Metric, name: str, split: str, of: tuple[torch.Tensor, ...] | None) -> Evidence:
            if of is None:
                before, never = bootstrap.certain(0.95, self.prompts), bootstrap.certain(0.02, self.prompts)
                after = never
            else:
                n = math.ceil(self.prompts * depths[name] / self.looks)
                sides = zip(("before", "after", "control"), of, strict=True)
                before, after, never = (bootstrap.rate(hits[:n], name, side) for side, hits in sides)
            found = residual_index(name, before, after, never, 0.2)
            direct = found if name == NAMED else None
            return Evidence((compare(metric, split, before, after, never, index=found),), direct=direct)

        kept, now = bootstrap.certain(0.95, self.prompts), bootstrap.certain(0.95 * (1 - self.lost), self.prompts)
        loss = damage_score("neighbours", kept, now)
        assert loss is not None
        return {
            "behaviour": {
                NAMED: index(DETECTION, NAMED, "target", self.by_name),
                KEPT: Evidence((compare(RECOGNITION, "neighbours", kept, now),), losses=(loss,)),
            },
            "recovery": {
                RECOVERED: index(Metric("recovery", "success", "lower", "rate"), RECOVERED, "all", self.recovery)
            },
        }


def play(played: Played, rounds: AuditRounds | None = None):
    return ask_in_rounds(rounds or AuditRounds(played.looks), played, FIRST, Thresholds())


def shares(
    recovered: float, count: int, *, careful: bool = True, agree: bool = True, naive: bool = False
) -> dict[str, float]:
    rounds = Naive(3) if naive else AuditRounds(3)
    found = [play(Played(i, recovered, careful=careful, agree=agree), rounds).verdict.name for i in range(count)]
    return {name: found.count(name) / count for name in ("erased", "suppressed")}


@pytest.mark.slow
def test_looking_three_times_calls_no_more_erased_or_left_than_it_may():
    """As much is left as is tolerated: each call may be wrong in 2.5 %. The same looks at 5 % each break that."""
    found, naive = shares(TOLERATED, 200), shares(TOLERATED, 100, careful=False, naive=True)
    assert found["erased"] <= 0.025 and found["suppressed"] <= 0.025, found
    print("three looks:", found, "not corrected:", naive)
    assert naive["erased"] > 0.05, naive


@pytest.mark.slow
def test_what_is_clear_is_decided_and_never_wrongly():
    gone, whole, half = (shares(rate, 20) for rate in (0.0, 0.95, 0.6))
    assert gone["erased"] >= 0.9 and gone["suppressed"] == 0, gone
    assert whole["suppressed"] >= 0.95 and whole["erased"] == 0 and half["erased"] == 0, (whole, half)


def test_a_loss_in_doubt_goes_on_and_one_that_is_sure_ends_it():
    assert play(Played(1, recovered=0.95, lost=0.3)).verdict.name == "damaged"
    assert len(play(Played(1, recovered=0.95, lost=0.3)).rounds) == 1


def test_only_what_is_in_doubt_goes_on():
    taken = play(Played(1, recovered=TOLERATED))
    assert [r.doubt for r in taken.rounds] == [(RECOVERED,), (RECOVERED,), ()] and taken.verdict.name == "undecided"
    assert taken.rounds[1].depths == {NAMED: 1, RECOVERED: 2, KEPT: 1} and taken.last.depths[RECOVERED] == 3
    assert [r.error for r in taken.rounds] == list(AuditRounds(3).errors) and taken.stopped == ""
    assert taken.last.answers == 1 + 3 + 1


def test_what_is_shown_by_name_is_decided_early():
    taken = play(Played(0, recovered=0.95, named=0.95, agree=False, lost=0.0, prompts=72))
    assert taken.verdict.name == "intact" and len(taken.rounds) < 3, taken.last.verdict


def test_an_interruption_keeps_the_rounds_that_were_whole():
    taken = play(Played(1, recovered=TOLERATED, interrupt=2))
    assert len(taken.rounds) == 1 and taken.verdict.name == "undecided"
    assert taken.verdict.reasons[-1] == "Stopped after round 1 of 3: interrupted in the next."
    with pytest.raises(KeyboardInterrupt):
        play(Played(1, recovered=TOLERATED, interrupt=1))


def test_erased_is_not_said_while_something_may_yet_be_found():
    """Of what has no index yet, with too few prompts to know, nothing is known."""

    class Faint(Played):
        def __post_init__(self) -> None:
            super().__post_init__()
            before, *rest = self.recovery
            self.recovery = (before * (torch.arange(len(before)) % 3 == 0)[:, None], *rest)

    first = play(Faint(1, recovered=0.0)).rounds[0]
    assert first.gathered["recovery"][RECOVERED].indices == () and RECOVERED in first.doubt
    erased = Verdict("erased", ("All of it is below.",))
    open_ = final_verdict(erased, ("probing",), 1, 3, "no more may be asked")
    assert open_.name == "undecided" and open_.reasons[-1] == "Stopped after round 1 of 3: no more may be asked."
    assert "probing" in open_.reasons[-2]
    assert final_verdict(erased, (), 3, 3, "") == final_verdict(erased, (), 1, 3, "") == erased
    late = final_verdict(erased, ("probing",), 3, 3, "")
    assert late.name == "undecided" and "not asked in full: probing" in late.reasons[-1]
