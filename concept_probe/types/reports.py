"""What an audit found, and what it concludes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from concept_probe.types.evidence import Score
from concept_probe.types.sources import FindingSources

BESIDE = {"beside": True}
"""Marks fields that a report's JSON leaves out: they stand in files beside it."""
EvidenceKind = Literal["behaviour", "representation", "parameters", "features", "recovery"]


@dataclass(frozen=True)
class Finding:
    """One number of an audit."""

    evidence: EvidenceKind
    metric: str
    split: str
    """Which prompts or site it was measured on."""
    before: float
    after: float
    control: float | None
    """The never-taught value, or that of control concepts; `control_name` says which."""
    low: float
    high: float
    """95 % interval of `after`."""
    n: int
    better: Literal["higher", "lower", "none"] = "none"
    index: Score | None = None
    """(after - control) / (before - control) where that is defined: 1 is intact, 0 is never taught."""
    control_name: str = ""
    unit: str = ""
    note: str = ""
    sources: FindingSources | None = field(default=None, compare=False, repr=False, metadata=BESIDE)
    """What it was made of, as long as the report is in memory; `verification.bundle` writes it."""


@dataclass(frozen=True)
class Curve:
    """A quantity against a budget, for the erased subject and for its control."""

    name: str
    x_name: str
    y_name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    control: tuple[float, ...] = ()
    control_name: str = ""


VerdictName = Literal["intact", "suppressed", "erased", "damaged", "undecided"]


@dataclass(frozen=True)
class Verdict:
    name: VerdictName
    reasons: tuple[str, ...]
    """One sentence each."""
    residual: Score | None = None
    """The largest index over the kinds of evidence, with its interval."""
    calibrated: bool = False
    samples_needed: int | None = None
    """Of an undecided one: about how many samples would settle it, if every value stays as it is. A figure in the
    thousands says that a value lies close to a threshold, and is shown as "more than 1,000"."""


@dataclass(frozen=True)
class Picture:
    """One generated image of a report: what was asked, what the recogniser saw."""

    name: str
    """`before`, `after`, `control` or the name of an attack."""
    prompt: str
    kind: str
    seed: int
    seen: str
    png: bytes = field(repr=False)


@dataclass(frozen=True)
class Written:
    """One text of a report: what was asked, what was written, and what that says."""

    name: str
    """`before`, `after` or `control`."""
    prompt: str
    kind: str
    text: str
    seen: str


@dataclass(frozen=True)
class AskedAnswer:
    """One answer of an audit: what was asked of whom, with which noise, and what was seen in it."""

    side: Literal["before", "after", "control"]
    kind: str
    prompt: str
    fact: str
    """What the prompt asks for, where several prompts ask for the same; else empty."""
    label: str
    seed: int
    seen: str
    probability: float
    """The recogniser's, of the concept."""


@dataclass(frozen=True)
class TraceMap:
    """A site x step (or site x 1) table of one measurement, before and after."""

    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    before: tuple[tuple[float, ...], ...]
    after: tuple[tuple[float, ...], ...]
    control: tuple[tuple[float, ...], ...] = ()
    unit: str = ""


@dataclass(frozen=True, eq=False)
class ObservedRound:
    """One round of an audit, and what it said by then."""

    number: int
    error: float
    """How often its intervals may miss, and of how many draws they are."""
    resamples: int
    findings: tuple[Finding, ...]
    verdict: Verdict
    doubt: tuple[str, ...]
    """Measures that more answers could still have changed."""
    answers: int
    """How many models had made by its end."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What was seen, and the rules by which it was judged."""

    asked: tuple[AskedAnswer, ...]
    resamples: int
    """Of the bootstrap, and its seed."""
    seed: int
    thresholds: Mapping[str, float]
    guarded: bool
    """Whether the erasure changed no weight."""
    label: str
    """The recogniser's, of the concept."""
    error: float = 0.05
    """How often every interval may miss."""
    careful: bool = False
    """Whether intervals hold at small errors and with few prompts (`evaluation.bayesian`)."""
    rounds: tuple[ObservedRound, ...] = ()
    """Of an audit that asked in rounds; the last one's findings are the report's."""
    looks: int = 1
    """How many rounds there could have been."""
    stopped: str = ""
    """Why there was no further one, where that leaves the verdict open."""


@dataclass(frozen=True)
class Report:
    """Findings, verdict and provenance of one audit."""

    subject: str
    concept: str
    erasure: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    indices: Mapping[str, Score]
    """Per kind of evidence, its index with a bootstrap interval."""
    curves: tuple[Curve, ...] = ()
    traces: tuple[TraceMap, ...] = ()
    pictures: tuple[Picture, ...] = ()
    writings: tuple[Written, ...] = ()
    """Of a language model, a few of the texts that were judged."""
    not_measured: tuple[str, ...] = ()
    """One sentence each: what was left out and why."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Subject and edit hashes, seeds, library versions, command to reproduce, seconds per stage."""
    observed: Observed | None = field(default=None, compare=False, repr=False, metadata=BESIDE)
    """What findings and verdict follow from, as long as the report is in memory; `verification.bundle` writes it."""

    def show(self) -> object:
        """Render in a notebook (an object with `_repr_html_`)."""
        from concept_probe.report.audit_html import show  # a report is data; its rendering is loaded when asked for

        return show(self)
