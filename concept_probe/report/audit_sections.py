"""The parts of a report as HTML that needs no script: verdict, indices, findings, pictures, provenance."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Sequence
from html import escape

from concept_probe.report.format import (
    ARROWS,
    EVIDENCE_NAMES,
    USUAL_LEVEL,
    VERDICTS,
    bounds,
    direction,
    interval,
    left_out,
    level,
    number,
    samples,
    score,
)
from concept_probe.report.glossary import CONTROL, KIND_MEANINGS, meanings
from concept_probe.types import Finding, Picture, Report, Score, Written


def finding_heads(sure: str = USUAL_LEVEL) -> tuple[str, ...]:
    """Names of the columns, with intervals of that level."""
    return ("Metric", "Measured on", "Before", "After", f"{sure} interval", "Control", "Index", "n")


def verdict_card(report: Report) -> str:
    """The verdict with its reasons, in a card."""
    v = report.verdict
    needed = v.samples_needed
    more = "" if needed is None else f"<p>Answers needed for a decision: {escape(samples(needed))}.</p>"
    mark = f'<span class="mark">{"" if v.calibrated else "un"}calibrated thresholds</span>'
    told = report.provenance.get("calibration", "")
    rates = f"<p><small>Calibration: {escape(told)}.</small></p>" if told else ""
    missing = left_out(report)
    missing = f"<p><small>Not measured: {escape(missing)}.</small></p>" if missing else ""
    residual = ""
    if v.residual is not None:
        residual = (
            f'<div class="residual"><span class="big">{v.residual.value:.2f}</span>'
            f"<span>residual, the largest index: {escape(v.residual.name)}<br>"
            f"{level(report)} interval {bounds(v.residual)}, n {v.residual.n}</span></div>"
        )
    return (
        f'<section class="verdict is-{v.name}"><p class="what">{escape(report.concept)} in {escape(report.subject)}, '
        f"after <code>{escape(report.erasure)}</code></p>"
        f'<h1><span class="word">{v.name}</span>{mark}</h1><p class="lead">{VERDICTS[v.name]}</p>'
        f"{bullets(v.reasons)}{more}{residual}{missing}{rates}</section>"
    )


def index_bars(scores: Iterable[tuple[str, Score]]) -> str:
    """One bar per kind of evidence: a dot with its interval on a scale from 0 (never taught) to 1 (untouched)."""
    rows = "".join(_index_row(name, s) for name, s in scores)
    if not rows:
        return ""
    scale = '<div class="scale"><span>0 · never taught</span><span>1 · untouched</span></div>'
    return f'<div class="indices">{rows}<div class="row"><span></span>{scale}<span></span></div></div>'


def _index_row(name: str, s: Score) -> str:
    title, what = EVIDENCE_NAMES.get(name, (name, ""))
    if math.isnan(s.value):
        bar = '<div class="bar"></div>'
    else:

        def place(v):
            return 8 + 84 * min(1.08, max(-0.08, v if math.isfinite(v) else s.value))

        low, high = place(s.low), place(s.high)
        bar = (
            f'<div class="bar"><i class="line" style="left:{low:.1f}%;width:{max(0.0, high - low):.1f}%"></i>'
            f'<i class="dot" style="left:{place(s.value):.1f}%"></i></div>'
        )
    return (
        f'<div class="row"><span class="name">{escape(title)}<small>{escape(what)}</small></span>{bar}'
        f'<span class="value">{score(s)}<small>n {s.n}</small></span></div>'
    )


def findings_table(rows: Sequence[Finding], sure: str = USUAL_LEVEL) -> str:
    """The findings as one table, grouped by kind of evidence."""
    out = []
    for kind in dict.fromkeys(f.evidence for f in rows):
        title, what = EVIDENCE_NAMES[kind]
        body = "".join(_finding_row(f, sure) for f in rows if f.evidence == kind)
        out.append(f'<tbody><tr class="group"><th colspan="8" scope="colgroup">{title} <small>{what}</small></th></tr>'
                   f"{body}</tbody>")  # fmt: skip
    head = "".join(
        f'<th scope="col"{" class=n" if at > 1 else ""}>{name}</th>' for at, name in enumerate(finding_heads(sure))
    )
    return f'<div class="scroll"><table class="findings"><thead><tr>{head}</tr></thead>{"".join(out)}</table></div>'


def _finding_row(f: Finding, sure: str) -> str:
    said = f.unit in ("rate", "share", "%", "") or f.unit in f.metric
    unit = "" if said else f" <small>{escape(f.unit)}</small>"
    control = number(f.control, f.unit) + (f"<small>{escape(f.control_name)}</small>" if f.control_name else "")
    note = f'<small class="note">{escape(f.note)}</small>' if f.note else ""
    arrow = f' <abbr title="{direction(f)}">{ARROWS[f.better]}</abbr>' if f.better != "none" else ""
    first = f"<td>{escape(_spaced(f.metric))}{arrow}{unit}{note}</td><td>{_breakable(f.split)}</td>"
    values = (
        number(f.before, f.unit), f"<b>{number(f.after, f.unit)}</b>", interval(f.low, f.high, f.unit), control,
        score(f.index), str(f.n),
    )  # fmt: skip
    cells = "".join(
        f'<td class="n{" control" if head == "Control" else ""}" data-head="{head}">{value}</td>'
        for head, value in zip(finding_heads(sure)[2:], values, strict=True)
    )
    return f"<tr>{first}{cells}</tr>"


def glossary_of_findings(rows: Sequence[Finding], sure: str = USUAL_LEVEL) -> str:
    """What the columns, the arrows and every metric of the findings mean, folded."""
    known = "".join(
        f"<dt>{escape(_spaced(m))}</dt><dd>{escape(t)}</dd>" for m, t in meanings(f.metric for f in rows).items()
    )
    return (
        f"<p class=intro>Before and after the erasure, with the {sure} interval of after; n is what was counted. "
        f"The {escape(CONTROL)} The index is 0 for never taught and 1 for untouched; a dash stands where none is "
        "defined. ↓ lower is better, ↑ higher is better.</p>"
        + (f"<details><summary>What each metric is</summary><dl class=words>{known}</dl></details>" if known else "")
    )


def picture_grids(report: Report) -> str:
    """Image grids: per kind and prompt one block, a row per name, a column per seed; the concept is marked."""
    out = []
    for kind in dict.fromkeys(p.kind for p in report.pictures):
        blocks = []
        for prompt in dict.fromkeys(p.prompt for p in report.pictures if p.kind == kind):
            of_prompt = [p for p in report.pictures if p.kind == kind and p.prompt == prompt]
            caption = escape(prompt) or "<i>empty prompt</i>"
            blocks.append(f"<figure><figcaption>{caption}</figcaption>{_grid(of_prompt, report.concept)}</figure>")
        about = f" <small>{escape(KIND_MEANINGS[kind])}</small>" if kind in KIND_MEANINGS else ""
        out.append(f'<h3>{escape(_spaced(kind))}{about}</h3><div class="grids">{"".join(blocks)}</div>')
    return "".join(out)


def texts_table(report: Report) -> str:
    """What was written: a row per prompt, a column per name; texts that show the concept are marked."""
    names = list(dict.fromkeys(w.name for w in report.writings))
    head = "".join(f'<th scope="col">{escape(_spaced(n))}</th>' for n in names)
    rows = []
    for kind, prompt in dict.fromkeys((w.kind, w.prompt) for w in report.writings):
        said = {w.name: w for w in report.writings if (w.kind, w.prompt) == (kind, prompt)}
        cells = "".join(f"<td>{_text_cell(said[n], report.concept) if n in said else ''}</td>" for n in names)
        rows.append(f'<tr><th scope="row">{escape(prompt)} <small>{escape(_spaced(kind))}</small></th>{cells}</tr>')
    return f'<table class="writings"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _text_cell(w: Written, concept: str) -> str:
    text = escape(w.text)
    return f"<b class=hit>{text}</b>" if w.seen == concept else text


def _grid(items: Sequence[Picture], concept: str) -> str:
    seeds = list(dict.fromkeys(p.seed for p in items))
    head = "".join(f'<th scope="col">seed {seed}</th>' for seed in seeds)
    rows = []
    for name in dict.fromkeys(p.name for p in items):
        table = {p.seed: p for p in items if p.name == name}
        cells = "".join(f"<td>{_picture(table[seed], concept) if seed in table else ''}</td>" for seed in seeds)
        rows.append(f'<tr><th scope="row">{escape(_spaced(name))}</th>{cells}</tr>')
    return f'<table class="pictures"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _picture(p: Picture, concept: str) -> str:
    data = base64.b64encode(p.png).decode("ascii")
    alt = escape(f"{p.name}, {p.prompt}, seed {p.seed}: seen as {p.seen}", quote=True)
    mark = ' class="hit"' if p.seen == concept else ""
    return f'<img src="data:image/png;base64,{data}" alt="{alt}"><span{mark}>{escape(p.seen)}</span>'


def _breakable(address: str) -> str:
    """An address that may be broken between its parts, and nowhere else."""
    return escape(address).replace("/", "/<wbr>").replace(".", ".<wbr>").replace(":", "<wbr>:")


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def bullets(lines: Sequence[str]) -> str:
    """Sentences as a list."""
    return "<ul>" + "".join(f"<li>{_prose(line)}</li>" for line in lines) + "</ul>"


def _prose(line: str) -> str:
    """A sentence in which what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(line))


def provenance_list(report: Report) -> str:
    """What made the report, as a list of terms."""
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in report.provenance.items())
    return f"<dl>{rows}</dl>"
