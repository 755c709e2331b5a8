"""A written audit checked by what it says itself: every number, index and the verdict are made again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from concept_probe.auditing.evidence.behaviour import DETECTION, FALSE_DETECTION, RECOGNITION, loss_of
from concept_probe.auditing.evidence.indexed import WITH_INDEX, belongs_to_an_index, may_gain_index
from concept_probe.auditing.provenance import versions
from concept_probe.auditing.rounds.schedule import final_verdict
from concept_probe.auditing.verdict import Thresholds, decide, largest_of_each
from concept_probe.evaluation.bayesian import BayesianBootstrap, residual_index
from concept_probe.evaluation.looks import errors_of_looks
from concept_probe.evaluation.sources import draws_again, mean_with_interval
from concept_probe.storage import read_text
from concept_probe.types import FORGET_KINDS, RETAIN_KINDS, Finding, FindingSources, Report, Score
from concept_probe.verification.answered import hits_again
from concept_probe.verification.bundle import RENDERED, Bundle, changed_files, read_bundle

CLOSE = 1e-9
"""Relative difference that another processor's order of sums may make."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    what: str
    outcome: Literal["holds", "fails", "not checked"]
    said: str = ""
    """What was found instead, or why it can't be checked."""


@dataclass(frozen=True)
class Remade:
    """A finding made again, with what the verdict needs of it."""

    finding: Finding
    index: Score | None
    loss: Score | None
    wrong: str
    """What is otherwise in the report; empty for nothing."""
    sources: FindingSources | None = None


def verify(folder: str | Path) -> tuple[Check, ...]:
    """Check an audit's folder; without the model, whose answers and activations are taken as they are written.

    Hashes and seals of all files; rates by the answers that were seen; every number with its interval by its
    observations; indices and verdict by those; the renderings by the report. What can't be checked is said. Raises
    MissingFile, WrongFile or CorruptFile where the folder can't be read: that is a failure too.
    """
    folder = Path(folder)
    bundle = read_bundle(folder)
    altered = list(changed_files(bundle, folder))
    checks = [_check("files are as they were written", ", ".join(altered))]
    checks += [_rendering(bundle.report, folder, name) for name in RENDERED]
    told = bundle.observed
    bootstrap = BayesianBootstrap(told.resamples, told.seed, told.error, told.careful)
    thresholds = Thresholds(**bundle.observed.thresholds)
    remade: list[Remade] = []
    for finding, sources in zip(bundle.report.findings, bundle.sources, strict=True):
        what = f"{finding.evidence}: {finding.metric}, {finding.split}"
        if sources is None or sources.after is None:
            if finding.index is not None or finding.metric in {*WITH_INDEX, RECOGNITION.name}:
                checks.append(Check(what, "fails", "it counts for the verdict, and its observations are not written"))
                continue
            why = "its observations are not written: what it is made of has no draws of its own"
            checks.append(Check(what, "not checked", why))
            continue
        try:
            remade.append(one := _remade(finding, sources, bootstrap, thresholds.gap))
        except ValueError as error:
            checks.append(Check(what, "fails", str(error)))
            continue
        checks.append(_check(what, one.wrong or answers_differ(bundle, finding, sources)))
    checks.append(_check("every kind that was asked has its finding", ", ".join(_left_out(bundle))))
    checks += _rounds(bundle, remade, thresholds)
    checks += _verdict(bundle, remade, thresholds)
    checks.append(
        Check(
            "answers, pictures, activations and attacks are the model's",
            "not checked",
            "that needs the model: audit again by the command and the hashes in the report's provenance",
        )
    )
    return tuple(checks)


def _left_out(bundle: Bundle) -> Iterator[str]:
    """Kinds of prompts of which there are answers and no finding."""
    found = {(f.metric, f.split) for f in bundle.report.findings}
    asked = {one.kind for one in bundle.observed.asked}
    for kinds, metric in ((FORGET_KINDS, DETECTION), (RETAIN_KINDS, RECOGNITION)):
        yield from (kind for kind in kinds if kind in asked and (metric.name, kind) not in found)


def _check(what: str, wrong: str) -> Check:
    return Check(what, "fails" if wrong else "holds", wrong)


def _rendering(report: Report, folder: Path, name: str) -> Check:
    what, written = f"{name} shows the report", report.provenance.get("versions", "")
    if f"concept-probe {versions()['concept-probe']}" not in written:
        return Check(what, "not checked", f"it was rendered by {written or 'another version'}")
    same = (folder / name).is_file() and read_text(folder / name, "") == RENDERED[name](report)
    return _check(what, "" if same else "it shows something else")


def _remade(finding: Finding, sources: FindingSources, bootstrap: BayesianBootstrap, gap: float) -> Remade:
    """The finding from its observations. ValueError where they can't be what it was made of."""
    assert sources.after is not None
    before = None if sources.before is None else draws_again(sources.before, bootstrap)
    never = None if sources.control is None else draws_again(sources.control, bootstrap)
    index: Score | None = None
    loss: Score | None = None
    if sources.after.how == "values":
        value, low, high, n = mean_with_interval(sources.after, bootstrap)
    else:
        after = draws_again(sources.after, bootstrap)
        value, (low, high), n = after.value, after.interval(), after.n
        if before is not None and never is not None and belongs_to_an_index(finding, sources):
            name = "" if finding.index is None else finding.index.name
            index = residual_index(name, before, after, never, gap)
        if finding.metric == RECOGNITION.name and before is not None:
            loss = loss_of(finding.split, before, after, never)
    pairs = {
        "before": (finding.before, finding.before if before is None else before.value),
        "after": (finding.after, value), "low": (finding.low, low), "high": (finding.high, high), "n": (finding.n, n),
        "control": (finding.control, finding.control if never is None else never.value),
    }  # fmt: skip
    wrong = [
        f"{name} is {found}, its observations give {made}"
        for name, (found, made) in pairs.items()
        if _differ(found, made)
    ]
    wrong += _index_differs(finding.index, index)
    return Remade(finding, index, loss, "; ".join(wrong), sources)


def _index_differs(found: Score | None, made: Score | None) -> Iterator[str]:
    if (found is None) != (made is None):
        yield f"the report has {'no' if found is None else 'an'} index, its observations give {'none' if made is None else 'one'}"
    elif found is not None and made is not None:
        for f in ("value", "low", "high", "n"):
            if _differ(getattr(found, f), getattr(made, f)):
                yield f"index {f} is {getattr(found, f)}, its observations give {getattr(made, f)}"


def answers_differ(bundle: Bundle, finding: Finding, sources: FindingSources) -> str:
    """How the hits of a finding of behaviour differ from what was seen in the answers; empty where they do not, and for
    other findings."""
    if finding.metric not in (DETECTION.name, RECOGNITION.name, FALSE_DETECTION.name):
        return ""
    for side in ("before", "after", "control"):
        source = getattr(sources, side)
        if source is None or source.how != "rate":
            continue
        hits = hits_again(bundle.observed, side, finding.split, false=finding.metric == FALSE_DETECTION.name)
        if hits is not None and (hits.shape != source.tensors[0].shape or not bool((hits == source.tensors[0]).all())):
            return f"{side}: the answers that were seen give other hits"
    return ""


def _judged(remade: Sequence[Remade]) -> tuple[Score | None, dict[str, list[Score]], list[Score]]:
    """What a verdict is decided by."""
    direct = next((r.index for r in remade if r.finding.metric == DETECTION.name and r.finding.split == "target"), None)
    others: dict[str, list[Score]] = {}
    for r in remade:
        if r.index is not None and r.index is not direct:
            others.setdefault(r.finding.evidence, []).append(r.index)
    return direct, others, [r.loss for r in remade if r.loss is not None]


def _rounds(bundle: Bundle, remade: Sequence[Remade], thresholds: Thresholds) -> Iterator[Check]:
    """Every look again: at the error that is its own by the number of looks, from what was there by then."""
    told = bundle.observed
    if not told.rounds:
        return
    errors = errors_of_looks(told.looks)
    numbers = [r.number for r in told.rounds]
    wrong = (
        [] if numbers == [*range(1, len(numbers) + 1)] and len(numbers) <= told.looks else ["their numbers are others"]
    )
    wrong += [
        f"round {r.number} has another error" for r in told.rounds if r.error not in errors[r.number - 1 : r.number]
    ]
    wrong += (
        [] if told.error == told.rounds[-1].error and told.careful else ["the last is not by the rules of the report"]
    )
    yield _check("rounds are by the rule of looks", "; ".join(wrong))
    for r in told.rounds:
        rows = remade
        if r is not told.rounds[-1]:
            bootstrap = BayesianBootstrap(r.resamples, told.seed, r.error, careful=True)
            rows = [_remade(f, f.sources, bootstrap, thresholds.gap) for f in r.findings if f.sources is not None]
        direct, others, losses = _judged(rows)
        made = decide(direct, others, losses, thresholds, guarded=told.guarded, error=r.error)
        same = made.name == r.verdict.name and made.reasons == r.verdict.reasons
        yield _check(f"verdict of round {r.number}", "" if same else f"its findings give {made.name}, or other reasons")


def _verdict(bundle: Bundle, remade: Sequence[Remade], thresholds: Thresholds) -> Iterator[Check]:
    report, told = bundle.report, bundle.observed
    direct, others, losses = _judged(remade)
    made = decide(direct, others, losses, thresholds, guarded=told.guarded, error=told.error)
    if told.rounds:
        last, bootstrap = told.rounds[-1], BayesianBootstrap(told.resamples, told.seed, told.error, told.careful)
        open_ = any(may_gain_index(replace(r.finding, sources=r.sources), bootstrap, thresholds.gap) for r in remade)
        if made.name == "erased" and last.number < told.looks and open_ and not last.doubt:
            yield _check("measures that may yet find something", "some are left, and none was said to be in doubt")
        made = final_verdict(made, last.doubt, last.number, told.looks, told.stopped)
    found = report.verdict
    wrong = [f"it is {found.name}, findings give {made.name}"] if made.name != found.name else []
    wrong += ["its reasons are others"] if made.reasons != found.reasons else []
    wrong += ["its residual is another"] if _scores_differ(found.residual, made.residual) else []
    wrong += ["it asks for another number of answers"] if made.samples_needed != found.samples_needed else []
    yield _check("verdict", "; ".join(wrong))
    indices = largest_of_each(others, direct, told.error)
    same = indices.keys() == report.indices.keys() and not any(
        _scores_differ(report.indices[kind], score) for kind, score in indices.items()
    )
    yield _check("indices by kind of evidence", "" if same else "findings give others")


def _scores_differ(a: Score | None, b: Score | None) -> bool:
    if a is None or b is None:
        return a is not b
    return any(
        _differ(x, y) if isinstance(x, float | int) and not isinstance(x, bool) else x != y
        for x, y in ((getattr(a, f.name), getattr(b, f.name)) for f in fields(Score))
    )


def _differ(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is not b
    return not (math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE) or (math.isnan(a) and math.isnan(b)))
