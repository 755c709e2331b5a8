"""A report as Markdown: verdict, findings, curves as tables; pictures are left to the HTML."""

from __future__ import annotations

from concept_probe.report.format import (
    ARROWS,
    EVIDENCE_NAMES,
    VERDICTS,
    interval,
    left_out,
    level,
    number,
    rounds,
    samples,
    score,
)
from concept_probe.report.glossary import CONTROL, meaning, meanings
from concept_probe.report.markdown import cell, code, escaped
from concept_probe.types import Curve, Report


def to_markdown(report: Report) -> str:
    """`report` as Markdown text that reads well in a terminal, an issue or a model card."""
    verdict = report.verdict
    out = [f"# {escaped(report.concept)} in {escaped(report.subject)}: {verdict.name}", ""]
    mark = "" if verdict.calibrated else " Thresholds are uncalibrated."
    out += [f"Erasure: {code(report.erasure)}. {VERDICTS[verdict.name]}{mark}", ""]
    out += [f"- {escaped(reason)}" for reason in verdict.reasons]
    if missing := left_out(report):
        out += ["", f"Not measured: {escaped(missing)}."]
    if "calibration" in report.provenance:
        out += ["", f"Calibration: {escaped(report.provenance['calibration'])}."]
    if verdict.residual is not None:
        out += ["", f"Residual (largest index): **{score(verdict.residual)}** with n = {verdict.residual.n}."]
    if verdict.samples_needed is not None:
        out += ["", f"Answers needed for a decision: {samples(verdict.samples_needed)}."]
    if report.indices:
        out += [
            "",
            "## Indices",
            "",
            f"0 is never taught, 1 is untouched; brackets hold {level(report)} intervals.",
            "",
        ]
        out += _table(
            ("evidence", "index", "n"),
            [(_evidence(name), score(s), str(s.n)) for name, s in report.indices.items()],
            "lrr",
        )
    if went := rounds(report):
        out += ["", "## Rounds", "", *[f"- {escaped(name)}: {escaped(said)}" for name, said in went]]
    if report.findings:
        out += ["", "## Findings", "", f"Each {CONTROL} ↓ lower is better, ↑ higher is better.", ""]
        rows = []
        for f in report.findings:
            control = number(f.control, f.unit) + (f" ({f.control_name})" if f.control_name else "")
            rows.append(
                (_evidence(f.evidence), f"{f.metric} {ARROWS[f.better]}".rstrip(), f.split, number(f.before, f.unit),
                 number(f.after, f.unit), interval(f.low, f.high, f.unit), control, score(f.index), str(f.n))
            )  # fmt: skip
        heads = ("evidence", "metric", "on", "before", "after", f"{level(report)} interval", "control", "index", "n")
        out += _table(heads, rows, "lllrrrrrr")
        notes = [f"- {escaped(f.metric)}, {escaped(f.split)}: {escaped(f.note)}" for f in report.findings if f.note]
        out += ["", *notes] if notes else []
        known = meanings(f.metric for f in report.findings)
        out += (
            ["", "What each metric is:", "", *[f"- {escaped(name)}: {said}" for name, said in known.items()]]
            if known
            else []
        )
    if report.writings:
        heads = ("kind", "prompt", "arm", "text", "shows")
        rows = [(w.kind, w.prompt, w.name, w.text, w.seen) for w in report.writings]
        out += ["", "## Texts", "", *_table(heads, rows, "lllll")]
    for curve in report.curves:
        about = meaning(f"success of {curve.name}")
        out += ["", f"## Recovery: {escaped(curve.name)}", "", *([about, ""] if about else []), *_curve(curve)]
    if report.not_measured:
        out += ["", "## What was not measured", "", *[f"- {escaped(line)}" for line in report.not_measured]]
    if report.provenance:
        out += ["", "## Provenance", "", *_table(("what", "value"), list(report.provenance.items()), "ll")]
    return "\n".join(out) + "\n"


def _curve(curve: Curve) -> list[str]:
    heads = [curve.x_name, curve.y_name, "95 % interval"] + ([curve.control_name or "control"] if curve.control else [])
    rows = []
    for i, x in enumerate(curve.x):
        row = [number(x), number(curve.y[i]), interval(curve.low[i], curve.high[i])]
        rows.append(tuple(row + ([number(curve.control[i])] if curve.control else [])))
    return _table(tuple(heads), rows, "r" * len(heads))


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]], align: str) -> list[str]:
    def line(cells):
        return "| " + " | ".join(map(cell, cells)) + " |"

    rule = "| " + " | ".join("---:" if a == "r" else "---" for a in align) + " |"
    return [line(heads), rule, *[line(row) for row in rows]]


def _evidence(name: str) -> str:
    return EVIDENCE_NAMES[name][0] if name in EVIDENCE_NAMES else name
