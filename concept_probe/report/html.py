"""A report as one HTML file that opens offline, and as a fragment for notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from concept_probe import figures
from concept_probe.report import pieces
from concept_probe.report.words import headline
from concept_probe.types import Finding, Report

# Colours of the page go into the figures as they are drawn, so that one file serves light and dark screens.
_DRAW = """
const draw = () => {
  const css = name => getComputedStyle(document.body).getPropertyValue(name).trim();
  for (const node of document.querySelectorAll('.chart')) {
    const figure = JSON.parse(document.getElementById(node.dataset.figure).textContent);
    const layout = figure.layout;
    layout.font = {...layout.font, color: css('--ink')};
    for (const key of Object.keys(layout))
      if (/^[xy]axis\\d*$/.test(key)) Object.assign(layout[key], {gridcolor: css('--grid'), linecolor: css('--grid')});
    for (const trace of figure.data) if (trace.error_y) trace.error_y.color = css('--ink');
    Plotly.react(node, figure.data, layout, {displayModeBar: false, responsive: true});
  }
};
draw();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
"""


def to_html(report: Report) -> str:
    """`report` as one page: figures, pictures, styles and scripts are inside; nothing is fetched."""
    charts: dict[str, Any] = {}
    body = "".join(_sections(report, charts))
    data = "".join(
        f'<script type="application/json" id="{name}">{_in_script(figure.to_json() or "null")}</script>'
        for name, figure in charts.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(headline(report))}</title><style>{_style()}</style></head>"
        f'<body class="cp-report page"><main>{body}</main>{data}'
        f"<script>{figures.script()}</script><script>{_DRAW}</script></body></html>\n"
    )


@dataclass(frozen=True)
class Shown:
    """A report on display: rich in a notebook, one line elsewhere."""

    report: Report

    def __repr__(self) -> str:
        return "\n".join([headline(self.report), *(f"- {reason}" for reason in self.report.verdict.reasons)])

    def _repr_html_(self) -> str:
        report = self.report
        parts = [pieces.verdict(report), pieces.indices(report.indices.items())]
        parts += [_folded("Findings", pieces.findings(report.findings))] if report.findings else []
        parts += [_folded("Pictures", pieces.pictures(report))] if report.pictures else []
        parts += [_folded("Not measured", pieces.bullets(report.not_measured))] if report.not_measured else []
        return f'<style>{_style()}</style><div class="cp-report">{"".join(parts)}</div>'


def show(report: Report) -> Shown:
    """`report` for a notebook: verdict, indices, findings, pictures; its curves are drawn by `figures`."""
    return Shown(report)


def _sections(report: Report, charts: dict[str, Any]) -> Iterable[str]:
    def chart(figure: Any) -> str:
        name = f"figure-{len(charts)}"
        charts[name] = figure
        return f'<div class="chart" data-figure="{name}" style="height:{figure.layout.height or 360}px"></div>'

    yield pieces.verdict(report)
    if report.indices:
        yield (
            "<h2>How much is left</h2><p class=intro>Each index is (after − never taught) / (before − never taught), "
            "with its 95 % interval.</p>" + pieces.indices(report.indices.items())
        )
    if report.pictures:
        yield "<h2>Pictures</h2><p class=intro>Pictures in one column share their noise. Below each stands what the "
        yield f"recogniser saw; <b class=hit>{escape(report.concept)}</b> is marked.</p>" + pieces.pictures(report)
    if report.findings:
        yield "<h2>Findings</h2>"
        drawn = "".join(f"<div>{chart(figures.detection(group))}</div>" for group in _rates(report.findings))
        yield f'<div class="charts">{drawn}</div>'
        yield pieces.findings(report.findings)
    if report.curves:
        drawn = "".join(f"<div>{chart(figures.recovery(curve))}</div>" for curve in report.curves)
        yield "<h2>Recovery</h2><p class=intro>What an attack regains as its budget grows. Only what lies above the "
        yield f'control was still in the model; the rest was taught by the attack.</p><div class="charts">{drawn}</div>'
    if report.traces:
        yield "<h2>Traces</h2>"
        for traces in report.traces:
            yield f"<h3>{escape(traces.name)}</h3>" + chart(figures.trace(traces))
    if report.not_measured:
        yield "<h2>What was not measured</h2>" + pieces.bullets(report.not_measured)
    if report.provenance:
        yield "<h2>Provenance</h2>" + pieces.provenance(report)


def _rates(findings: tuple[Finding, ...]) -> Iterable[list[Finding]]:
    """Behaviour findings that can be drawn together: several of one metric."""
    behaviour = [f for f in findings if f.evidence == "behaviour"]
    for metric in dict.fromkeys(f.metric for f in behaviour):
        group = [f for f in behaviour if f.metric == metric]
        if len(group) > 1:
            yield group


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>{body}</details>"


def _in_script(text: str) -> str:
    """JSON that can stand inside a script element whatever its strings hold."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _style() -> str:
    return (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
