"""What a measure returns, and the one place where a finding is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from concept_probe.auditing.context import Context
from concept_probe.evaluation.bayesian import Draws
from concept_probe.types import (
    Curve,
    EvidenceKind,
    Finding,
    FindingSources,
    Kind,
    NumberSource,
    Picture,
    Score,
    TraceMap,
)


@dataclass(frozen=True)
class Metric:
    """A number that a measure reports. What it means to a reader stands in `report.glossary`."""

    evidence: EvidenceKind
    """The kind under which the measure is registered."""
    name: str
    better: Literal["higher", "lower", "none"] = "lower"
    """For whoever wants the concept gone and all else kept."""
    unit: str = ""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval and what was counted; `Draws` is one where a rate was drawn."""

    value: float
    low: float
    high: float
    n: int
    source: NumberSource | None = None


def mean_estimate(context: Context, values: Tensor, key: str, n: int | None = None) -> Estimate:
    """The mean of values (rows, ...) of any range, rows drawn; n is how many were counted, by default the rows."""
    rows = values.flatten(1).mean(1) if values.ndim > 1 else values
    count = len(values) if n is None else n
    source = NumberSource("values", (values,), key, number=count)
    return Estimate(float(values.mean()), *context.bootstrap.mean(rows, key), count, source)


def compare(
    metric: Metric, where: str, before: Draws | float, after: Draws | Estimate, never: Draws | float | None = None, *,
    control: str = "", index: Score | None = None, note: str = "",
) -> Finding:  # fmt: skip
    """A metric on three sides: before the erasure, after it, and where the concept was never taught.

    `where` says on which prompts or at which site it was measured, `control` what the never-taught value is from.
    """
    low, high = after.interval() if isinstance(after, Draws) else (after.low, after.high)
    return Finding(
        evidence=metric.evidence,
        metric=metric.name,
        split=where,
        before=_number(before),
        after=after.value,
        control=None if never is None else _number(never),
        low=low,
        high=high,
        n=after.n,
        better=metric.better,
        index=index,
        control_name=control,
        unit=metric.unit,
        note=note,
        sources=FindingSources(*(getattr(side, "source", None) for side in (before, after, never))),
    )


def _number(value: Draws | float) -> float:
    return value.value if isinstance(value, Draws) else value


@dataclass(frozen=True)
class Evidence:
    """What a measure found."""

    findings: tuple[Finding, ...] = ()
    """Each with its index, where that is defined: the verdict goes by all of them."""
    not_measured: tuple[str, ...] = ()
    """One sentence each: what was left out and why."""
    direct: Score | None = None
    """The index of prompts that name the concept, which the verdict begins with; one measure alone gives it."""
    losses: tuple[Score, ...] = ()
    """Shares lost of what was to be kept, by which the verdict finds damage."""
    curves: tuple[Curve, ...] = ()
    traces: tuple[TraceMap, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def indices(self) -> tuple[Score, ...]:
        return tuple(f.index for f in self.findings if f.index is not None)


def joined_evidence(parts: Iterable[Evidence]) -> Evidence:
    """All of it in order; a sentence that several say is said once."""
    parts = tuple(parts)
    return Evidence(
        tuple(f for e in parts for f in e.findings),
        tuple(dict.fromkeys(s for e in parts for s in e.not_measured)),
        next((e.direct for e in parts if e.direct is not None), None),
        tuple(s for e in parts for s in e.losses),
        tuple(c for e in parts for c in e.curves),
        tuple(t for e in parts for t in e.traces),
        tuple(p for e in parts for p in e.pictures),
    )


@dataclass(frozen=True)
class Need:
    """Something that an audit may lack."""

    met: Callable[[Context], bool]
    missing: str
    """The sentence that the report has where it is not met."""


@dataclass(frozen=True)
class Measure:
    """One way to look for what is left of a concept: what it needs, and what it makes of an audit that has it.

    >>> evidence = Measure("mine", look, on="texts", needs=(VECTORS,))(context)
    """

    name: str
    look: Callable[[Context], Evidence]
    """Called where all needs are met. It changes nothing: what it puts into a model comes out again."""
    on: Literal["pictures", "texts", "both"] = "both"
    """Subjects that it measures: those that answer with pictures, with texts, or either. Of others it says nothing."""
    needs: tuple[Need, ...] = ()
    asks: tuple[Kind, ...] = ()
    """Kinds of prompts whose answers, or activations on the way to them, it looks at. Without a twin it may look at those of
    other things too, which stand in for a model that was never taught."""
    asks_itself: Callable[[Context, Context | None], int] | None = None
    """The most answers that it asks models for besides what everybody is asked, where it does: in an audit, whose arms have
    not been asked yet, and after another that asked less."""

    def __call__(self, context: Context) -> Evidence:
        if self.on not in ("both", context.answers):
            return Evidence()
        missing = next((need.missing for need in self.needs if not need.met(context)), None)
        return self.look(context) if missing is None else Evidence(not_measured=(missing,))
