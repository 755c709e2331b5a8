"""What every measure of an audit is given, and how it draws numbers with an interval from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from concept_probe.auditing.arm import Arm, guarded
from concept_probe.auditing.cache import MeasurementCache
from concept_probe.auditing.observe import Observation
from concept_probe.auditing.places import Places
from concept_probe.auditing.plan import AuditPlan
from concept_probe.auditing.questions import Questions
from concept_probe.auditing.sides import Side, Sides
from concept_probe.auditing.states import identical
from concept_probe.evaluation.bayesian import BayesianBootstrap, Draws
from concept_probe.evaluation.intervals import USUAL_ERROR
from concept_probe.evaluation.rates import per_fact
from concept_probe.types import RETAIN_KINDS, Kind, Subspace


@dataclass(frozen=True, eq=False)
class Context:
    """An audit, as far as it has come: everybody has been asked, and nothing was made of it yet."""

    plan: AuditPlan
    questions: Questions
    arms: Sides[Arm]
    """Models that may be asked more: an erasure is on inside `arm.on()` alone."""
    seen: Sides[Observation]
    """Arms in the same state share one observation."""
    places: Places
    """Where activations were read."""
    found: tuple[Subspace, ...] = ()
    """Concept vectors and features that were found before, to look for."""
    cache: MeasurementCache = field(default_factory=MeasurementCache)
    """For what is measured of one arm alone, under `questions.key`."""
    error: float = USUAL_ERROR
    """How often an interval may miss."""
    careful: bool = False
    """Whether intervals hold at small errors and with few prompts: where numbers are looked at while they grow."""
    whole: Questions | None = None
    """All that may be asked in the end, where this is a part of it."""

    @property
    def answers(self) -> Literal["pictures", "texts"]:
        return self.questions.answers

    @property
    def gap(self) -> float:
        """Smallest before − never taught for which an index is computed."""
        return self.plan.thresholds.gap

    @property
    def bootstrap(self) -> BayesianBootstrap:
        return BayesianBootstrap(self.plan.resamples, self.plan.seed, self.error, self.careful)

    @property
    def has_twin(self) -> bool:
        return self.seen.control is not None

    @property
    def control_name(self) -> str:
        """What stands for a model that was never taught, where that is a rate of detection."""
        return "never-taught twin" if self.has_twin else "mistakes of the recogniser on other concepts"

    @property
    def guarded(self) -> bool:
        """Whether the weights with the erasure on are those from before: what it does, it does beside them."""
        return guarded(self.arms)

    def beside(self, before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
        """Whether a place is the same to the bit before and after, though something was changed: what goes on from there
        is the model as it was, whatever the erasure did, and says nothing about it."""
        return self.arms.after.state != self.arms.before.state and identical(before, after)

    def rate(self, hits: Float[Tensor, "p s"], key: str, side: Side | str) -> Draws:
        """The rate of hits, each in 0..1, on one side; sides are paired under a key.

        Sides with one observation are the same model in the same state, one sample and not two: they are drawn alike.
        """
        if side == "control" and self.seen.control is self.seen.after:
            side = "after"
        if side == "after" and self.seen.after is self.seen.before:
            side = "before"
        return self.bootstrap.rate(hits, key, side)

    def per_fact(self, values: Float[Tensor, "p s"], kind: Kind) -> Float[Tensor, "f s"]:
        """Of the test prompts of one kind: wordings of one fact count once. Prompts without one count each."""
        return per_fact(values, self.questions.prompts(kind))

    def direct(self) -> Draws:
        """Detection before the erasure on prompts that name the concept."""
        return self.rate(self.per_fact(self.seen.before.hits("target"), "target"), "target", "before")

    def false_detection(self) -> Draws | None:
        """How often the subject, before, is said to show the concept when something else is asked; None where nothing is, or
        was for this measure."""
        if any(kind not in self.seen.before.trials for kind in RETAIN_KINDS):
            return None
        hits = self.false_hits(self.seen.before)
        return self.rate(hits, "mistakes", "before") if len(hits) else None

    def false_hits(self, seen: Observation) -> Float[Tensor, "f s"]:
        """How often an answer to a neighbour or an unrelated prompt is said to show the concept."""
        asked = self.questions.prompts_of(RETAIN_KINDS)
        hits = seen.false_hits(self.questions.label)
        return per_fact(hits, asked) if asked else hits

    def no_index(self, *, beside: bool = False) -> str:
        """Why a finding has none; `beside`: the place is one that the erasure does not reach."""
        if beside:
            return "the same to the bit as before: the erasure acts elsewhere, so nothing is measured here: no index"
        return f"before − control is under {self.gap:g}, or may be 0: no index"
