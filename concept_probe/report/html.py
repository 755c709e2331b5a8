"""A report as one HTML file that opens offline: verdict first, evidence after, provenance last."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby

from concept_probe import figures
from concept_probe.figures.theme import VERDICT_COLOURS
from concept_probe.report.words import ARROWS, EVIDENCE, VERDICTS, headline, interval, number, score
from concept_probe.types import Finding, Picture, Report

COLUMNS = 10
"""Pictures side by side in a grid."""


class Shown:
    """A report in a notebook: the whole page, in a frame of its own."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def __repr__(self) -> str:
        return headline(self.report)

    def _repr_html_(self) -> str:
        page = escape(to_html(self.report), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:900px;border:1px solid #dfe4ea;border-radius:4px"></iframe>'


def show(report: Report) -> Shown:
    """An object that a notebook shows as the rendered report."""
    return Shown(report)


def to_html(report: Report) -> str:
    """`report` as a self-contained page: no request leaves it."""
    css = files("concept_probe.report").joinpath("page.css").read_text(encoding="utf-8")
    body = "\n".join(part for part in _parts(report) if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(headline(report))}</title>\n<style>{css}</style>\n<script>{figures.script()}</script></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _parts(report: Report) -> Iterable[str]:
    yield f"<h1>{escape(report.concept)} in {escape(report.subject)}</h1>"
    yield f'<p class="soft">Erasure: <code>{escape(report.erasure)}</code></p>'
    yield _verdict(report)
    if report.indices:
        yield "<h2>How much is left</h2>"
        yield '<p class="soft">One index per kind of evidence: 0 is a model that was never taught, 1 is the untouched model.'
        yield " Bars are 95 % bootstrap intervals.</p>"
        yield figures.fragment(figures.indices(report))
    yield _pictures(report)
    behaviour = [f for f in report.findings if f.evidence == "behaviour" and f.unit in ("rate", "share")]
    if behaviour:
        yield "<h2>What is drawn</h2>"
        yield '<p class="soft">Share of pictures in which the recogniser sees what was asked for, per kind of prompt.</p>'
        for metric in dict.fromkeys(f.metric for f in behaviour):
            yield figures.fragment(figures.detection([f for f in behaviour if f.metric == metric]))
    if report.curves:
        yield "<h2>What attacks bring back</h2>"
        yield (
            '<div class="pair">'
            + "".join(f"<div>{figures.fragment(figures.recovery(c))}</div>" for c in report.curves)
            + "</div>"
        )
    if report.traces:
        yield "<h2>Where traces remain</h2>"
        yield "".join(f"<h3>{escape(t.name)}</h3>{figures.fragment(figures.trace(t))}" for t in report.traces)
    if report.findings:
        yield "<h2>Findings</h2>" + _findings(report.findings)
    if report.not_measured:
        yield (
            "<h2>What was not measured</h2><ul>"
            + "".join(f"<li>{escape(s)}</li>" for s in report.not_measured)
            + "</ul>"
        )
    if report.provenance:
        rows = "".join(
            f'<tr><td>{escape(k)}</td><td class="mono">{escape(v)}</td></tr>' for k, v in report.provenance.items()
        )
        yield f'<h2>Provenance</h2><div class="scroll"><table>{rows}</table></div>'
    yield "<footer>Written by concept_probe. The JSON beside this file is the source; this page is a rendering of it.</footer>"


def _verdict(report: Report) -> str:
    verdict = report.verdict
    mark = "calibrated" if verdict.calibrated else "uncalibrated thresholds"
    reasons = "".join(f"<li>{escape(r)}</li>" for r in verdict.reasons)
    residual = ""
    if verdict.residual is not None:
        residual = (
            f"<p>Residual, the largest index: <b>{escape(score(verdict.residual))}</b> "
            f'<span class="soft">({escape(verdict.residual.name)}, n {verdict.residual.n})</span></p>'
        )
    if verdict.samples_needed is not None:
        residual += f"<p>A decision needs about {verdict.samples_needed} samples.</p>"
    return (
        f'<div class="verdict" style="--tone:{VERDICT_COLOURS[verdict.name]}"><b class="name">{verdict.name}</b>'
        f'<span class="pill">{mark}</span><p>{VERDICTS[verdict.name]}</p>{residual}<ul>{reasons}</ul></div>'
    )


def _findings(findings: Sequence[Finding]) -> str:
    heads = (
        ("metric", ""),
        ("on", ""),
        ("before", "n"),
        ("after", "n"),
        ("95 % interval", "n"),
        ("control", "n"),
        ("index", "n"),
        ("n", "n"),
    )
    out = ["".join(f'<th class="{c}">{h}</th>' for h, c in heads)]
    for kind, group in groupby(findings, key=lambda f: f.evidence):
        name, about = EVIDENCE[kind]
        out.append(f'</tr><tr class="group"><td colspan="8">{name} <span class="soft">{about}</span></td>')
        for f in group:
            notes = "".join(f'<div class="note">{escape(n)}</div>' for n in (f.note,) if n)
            control = number(f.control, f.unit)
            title = f' title="{escape(f.control_name)}"' if f.control_name else ""
            out.append(
                f"</tr><tr><td>{escape(f.metric)} {ARROWS[f.better]}{notes}</td><td>{escape(f.split)}</td>"
                f'<td class="n">{number(f.before, f.unit)}</td><td class="n">{number(f.after, f.unit)}</td>'
                f'<td class="n">{interval(f.low, f.high, f.unit)}</td><td class="n"{title}>{control}</td>'
                f'<td class="n">{score(f.index)}</td><td class="n">{f.n}</td>'
            )
    names = sorted({f.control_name for f in findings if f.control_name})
    legend = f'<p class="soft">Arrows say which way an erasure should move a number or keep it. Controls: {escape("; ".join(names))}.</p>'
    return f'<div class="scroll"><table><tr>{"".join(out)}</tr></table></div>{legend}'


def _pictures(report: Report) -> str:
    if not report.pictures:
        return ""
    out = [
        "<h2>Pictures</h2>",
        '<p class="soft">Columns share prompt and noise. Below each picture: what the recogniser sees; '
        "in red where it is the concept.</p>",
    ]
    paired = [p for p in report.pictures if p.name in ("before", "after", "control")]
    for kind, group in _by_kind(paired):
        out.append(f"<h3>{escape(kind)}</h3>" + _grid(group, report.concept))
    for name in dict.fromkeys(p.name for p in report.pictures if p.name not in ("before", "after", "control")):
        shown = [p for p in report.pictures if p.name == name][:COLUMNS]
        out.append(f"<h3>attack: {escape(name.replace('_', ' '))}</h3>" + _grid(shown, report.concept))
    return "\n".join(out)


def _by_kind(pictures: Sequence[Picture]) -> list[tuple[str, list[Picture]]]:
    kinds = dict.fromkeys(p.kind for p in pictures)
    return [(kind, [p for p in pictures if p.kind == kind]) for kind in kinds]


def _grid(pictures: Sequence[Picture], concept: str) -> str:
    names = list(dict.fromkeys(p.name for p in pictures))
    asked = list(dict.fromkeys((p.prompt, p.seed) for p in pictures))[:COLUMNS]
    table = {(p.name, p.prompt, p.seed): p for p in pictures}
    rows = [
        "<tr><th></th>" + "".join(f'<th class="prompt" title="seed {s}">{escape(p)}</th>' for p, s in asked) + "</tr>"
    ]
    for name in names:
        cells = "".join(_cell(table.get((name, *a)), concept) for a in asked)
        rows.append(f'<tr><th class="row">{escape(name.replace("_", " "))}</th>{cells}</tr>')
    return f'<div class="scroll"><table class="grid">{"".join(rows)}</table></div>'


def _cell(picture: Picture | None, concept: str) -> str:
    if picture is None:
        return "<td></td>"
    data = base64.b64encode(picture.png).decode()
    hit = ' class="hit"' if picture.seen == concept else ""
    return (
        f'<td{hit}><img src="data:image/png;base64,{data}" alt="{escape(picture.prompt)}">{escape(picture.seen)}</td>'
    )
