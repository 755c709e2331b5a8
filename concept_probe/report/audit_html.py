"""A report as one HTML file that opens offline, and as a fragment for notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from concept_probe import figures
from concept_probe.report.audit_sections import (
    bullets,
    findings_table,
    glossary_of_findings,
    index_bars,
    picture_grids,
    provenance_list,
    texts_table,
    verdict_card,
)
from concept_probe.report.format import headline, level, rounds
from concept_probe.report.glossary import meaning
from concept_probe.report.page import Charts, page, style
from concept_probe.types import Finding, Report, TraceMap


def to_html(report: Report) -> str:
    """`report` as one page: figures, pictures, styles and scripts are inside; nothing is fetched."""
    charts = Charts()
    return page(headline(report), "".join(_sections(report, charts)), charts)


@dataclass(frozen=True)
class Shown:
    """A report on display: rich in a notebook, one line elsewhere."""

    report: Report

    def __repr__(self) -> str:
        return "\n".join([headline(self.report), *(f"- {reason}" for reason in self.report.verdict.reasons)])

    def _repr_html_(self) -> str:
        report = self.report
        parts = [verdict_card(report), index_bars(report.indices.items())]
        parts += [_folded("Findings", findings_table(report.findings, level(report)))] if report.findings else []
        parts += [_folded("Pictures", picture_grids(report))] if report.pictures else []
        parts += [_folded("Texts", texts_table(report))] if report.writings else []
        parts += [_folded("Not measured", bullets(report.not_measured))] if report.not_measured else []
        return f'<style>{style()}</style><div class="cp-report">{"".join(parts)}</div>'


def show(report: Report) -> Shown:
    """`report` for a notebook: verdict, indices, findings, pictures; its curves are drawn by `figures`."""
    return Shown(report)


def _sections(report: Report, chart: Charts) -> Iterable[str]:
    yield verdict_card(report)
    if report.indices:
        yield (
            "<h2>How much is left</h2><p class=intro>Each index is (after − never taught) / (before − never taught), "
            f"with its {level(report)} interval: 0 is a model that was never taught the concept, 1 the model before the erasure. "
            "Of every kind of evidence the largest is shown, since an attacker picks the weakest place; each was first drawn "
            "towards the mean of its kind, since the largest of many is large by chance.</p>"
            + index_bars(report.indices.items())
        )
    if went := rounds(report):
        yield "<h2>Rounds</h2><p class=intro>First a little of everything was asked, then only what was in doubt. Every look has an "
        yield "error of its own, so that all of them together are wrong as seldom as one.</p>"
        yield bullets([f"{name}: {said}" for name, said in went])
    if report.pictures:
        yield "<h2>Pictures</h2><p class=intro>Pictures in one column share their noise. Below each stands what the "
        yield f"recogniser saw; <b class=hit>{escape(report.concept)}</b> is marked.</p>" + picture_grids(report)
    if report.writings:
        yield "<h2>Texts</h2><p class=intro>What was written after each prompt; a text that shows "
        yield f"<b class=hit>{escape(report.concept)}</b> is marked.</p>" + texts_table(report)
    if report.findings:
        yield "<h2>Findings</h2>" + glossary_of_findings(report.findings, level(report))
        drawn = "".join(f"<div>{chart(figures.detection(group))}</div>" for group in _rates(report.findings))
        yield f'<div class="charts">{drawn}</div>'
        yield findings_table(report.findings, level(report))
    if report.curves:
        drawn = "".join(
            f"<div><h3>{escape(curve.name.replace('_', ' '))}</h3><p class=intro>"
            f"{escape(meaning(f'success of {curve.name}'))}</p>{chart(figures.recovery(curve, title=''))}</div>"
            for curve in report.curves
        )
        yield "<h2>Recovery</h2><p class=intro>What an attack regains as its budget grows. Only what lies above the "
        yield f'control was still in the model; the rest was taught by the attack.</p><div class="charts">{drawn}</div>'
    if report.traces:
        yield "<h2>Traces</h2><p class=intro>Where in the model, and when, the measurement still sees the concept: a "
        yield "row per site, a column per denoising step or place. Control is the model that was never taught it, or what "
        yield "stands in for it.</p>"
        for traces in report.traces:
            drawn = chart(figures.trace(traces, **_scale(traces)))
            yield f'<h3>{escape(traces.name)}</h3><div class="scroll"><div class="wide">{drawn}</div></div>'
    if report.not_measured:
        yield "<h2>What was not measured</h2>" + bullets(report.not_measured)
    if report.provenance:
        yield "<h2>Provenance</h2>" + provenance_list(report)


def _rates(findings: tuple[Finding, ...]) -> Iterable[list[Finding]]:
    """Behaviour findings that can be drawn together: several of one metric."""
    behaviour = [f for f in findings if f.evidence == "behaviour"]
    for metric in dict.fromkeys(f.metric for f in behaviour):
        group = [f for f in behaviour if f.metric == metric]
        if len(group) > 1:
            yield group


def _scale(traces: TraceMap) -> dict[str, float]:
    """Rates and AUROCs of all maps share one scale, so that a colour means the same in each."""
    return {"low": 0.0, "high": 1.0} if traces.unit in ("rate", "AUROC", "probability") else {}


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>{body}</details>"
