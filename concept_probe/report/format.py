"""Numbers and names as a reader of a report sees them; shared by HTML, Markdown and the terminal."""

from __future__ import annotations

import math

from concept_probe.types import Finding, Report, Score

VERDICTS = {
    "intact": "The concept is still there.",
    "suppressed": "Asked for, the concept is gone or weakened; but the knowledge is still there.",
    "erased": "Nothing of the concept was found.",
    "damaged": "The model lost more than the concept.",
    "undecided": "There are too few samples to decide.",
}
EVIDENCE_NAMES = {
    "behaviour": ("Behaviour", "what the model answers when it is asked"),
    "representation": ("Representation", "what its activations still tell"),
    "parameters": ("Parameters", "what its weights still hold"),
    "features": ("Features", "whether the concept's features still fire"),
    "recovery": ("Recovery", "what attacks bring back"),
}
MANY = 1000
"""A figure of more samples says only that a value lies close to a threshold: it changes by as much with every draw."""
USUAL_LEVEL = "95 %"
ARROWS = {"higher": "↑", "lower": "↓", "none": ""}


def number(value: float | None, unit: str = "") -> str:
    """A value with three significant digits; rates in percent; an en dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if unit in ("rate", "share", "%"):
        scaled = value if unit == "%" else value * 100
        return f"{scaled:.0f} %" if abs(scaled - round(scaled)) < 0.05 else f"{scaled:.1f} %"
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.2e}".replace("-", "−")
    digits = 3 if abs(value) < 10 else 1
    text = f"{value:.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", "−")


def level(report: Report) -> str:
    """How sure the intervals of findings and indices are: 95 %, but where an audit looked more than once."""
    return report.provenance.get("intervals", USUAL_LEVEL)


def rounds(report: Report) -> list[tuple[str, str]]:
    """The rounds of an audit as they went, and why there was no further one; nothing where all was asked at once."""
    return [(name, said) for name, said in report.provenance.items() if name.startswith("round")]


def samples(needed: int) -> str:
    """How many answers a decision is thought to need, as far as that can be planned with, and how they are asked for."""
    found = f"about {needed}" if needed <= MANY else f"more than {MANY:,}, since a value lies close to its threshold"
    return f"{found} for each kind of prompt (prompts times seeds; --prompts, --seeds)"


def interval(low: float, high: float, unit: str = "") -> str:
    """`low – high`, or an en dash where either is not a number."""
    if math.isnan(low) or math.isnan(high):
        return "–"
    return f"{number(low, unit).removesuffix(' %')} – {number(high, unit)}"


def bounds(value: Score) -> str:
    """The interval of an index, with its two decimals."""
    return f"{value.low:.2f} – {value.high:.2f}".replace("-", "−")


def score(value: Score | None) -> str:
    """An index with its interval."""
    if value is None or math.isnan(value.value):
        return "–"
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]".replace("-", "−")


def direction(finding: Finding) -> str:
    """Which way is better for whoever wants the concept gone and the rest kept."""
    return {"higher": "higher is better", "lower": "lower is better", "none": ""}[finding.better]


def headline(report: Report) -> str:
    """One line: what was done to what, and the verdict."""
    calibrated = "" if report.verdict.calibrated else " (uncalibrated)"
    return f"{report.concept} in {report.subject}, {report.erasure}: {report.verdict.name}{calibrated}"


def left_out(report: Report) -> str:
    """What was not measured, without its reasons; empty where everything was."""
    names = dict.fromkeys(line.partition(": ")[0].rstrip(".") for line in report.not_measured)
    return "; ".join(name[:1].lower() + name[1:] for name in names)
