"""How often the concept, and everything else, is recognised, before and after an erasure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import plotly.graph_objects as go

from concept_probe.figures.theme import AFTER, BEFORE, CONTROL, as_written, layout
from concept_probe.types import Finding


def detection(findings: Sequence[Finding], *, title: str = "") -> go.Figure:
    """Grouped bars, one group per split: before, after with its 95 % interval, and the control.

    `findings` share one metric, else ValueError: bars of different units can't stand on one axis.
    """
    metrics = sorted({f.metric for f in findings})
    if len(metrics) > 1:
        raise ValueError(f"one metric can be drawn at a time, these findings have {metrics}")
    percent = not findings or all(0 <= v <= 1 for f in findings for v in (f.before, f.after) if v == v)

    def write(v: float) -> str:
        return "–" if v != v else f"{v:.0%}" if percent else f"{v:.3g}"

    # The numbers stand below the bars, where no interval crosses them.
    names = {f.split: f"{as_written(f.split)}<br>{write(f.before)} → <b>{write(f.after)}</b>" for f in findings}
    figure = go.Figure()
    figure.add_bar(x=list(names.values()), y=[f.before for f in findings], name="before", marker_color=BEFORE)
    figure.add_bar(
        x=list(names.values()), y=[f.after for f in findings], name="after", marker_color=AFTER,
        error_y={"type": "data", "symmetric": False, "array": [max(0.0, f.high - f.after) for f in findings],
                 "arrayminus": [max(0.0, f.after - f.low) for f in findings], "thickness": 1.6, "width": 5},
    )  # fmt: skip
    known = [f for f in findings if f.control is not None]
    if known:
        labels = {f.control_name for f in known}
        label = labels.pop() if len(labels) == 1 else ""
        label = label if 0 < len(label) <= 28 else "control"  # a long one would fold the legend
        figure.add_scatter(
            x=[names[f.split] for f in known], y=[f.control for f in known], name=as_written(label), mode="markers",
            marker={"symbol": "line-ew", "size": 34, "line": {"width": 3, "color": CONTROL}, "color": CONTROL},
        )  # fmt: skip
    layout(figure, title=title, height=380)
    figure.update_layout(barmode="group", bargap=1 - 0.72 * min(1.0, len(findings) / 4), bargroupgap=0.06)
    figure.update_xaxes(showgrid=False)
    metric, unit = (findings[0].metric, findings[0].unit) if findings else ("", "")
    y_name = f"{metric} ({unit})" if unit and not percent else metric
    y_name = "<br>".join(map(as_written, textwrap.wrap(y_name, 30)))  # a longer one is higher than its axis
    figure.update_yaxes(title=y_name, rangemode="tozero")
    if percent:
        figure.update_yaxes(range=[0, 1.06], tickvals=[0, 0.25, 0.5, 0.75, 1], tickformat=".0%")
    return figure
