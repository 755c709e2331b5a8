"""How much of the concept is left, per kind of evidence."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from concept_probe.figures.theme import BEFORE, VERDICT_COLOURS, as_written, layout
from concept_probe.types import Report


def indices(report: Report, *, threshold: float | None = None) -> go.Figure:
    """Every index of a report with its 95 % interval: 0 is never taught, 1 is untouched.

    `threshold` draws the line that a verdict was decided by. Values are shown clipped to -0.1..1.1;
    the label beside each holds the unclipped number.
    """
    scores = dict(report.indices)
    if report.verdict.residual is not None:
        scores = {"residual (largest)": report.verdict.residual, **scores}
    shown = {name: s for name, s in scores.items() if math.isfinite(s.value)}

    def clip(v):
        return min(1.1, max(-0.1, v))

    names = list(shown)[::-1]
    labels = [as_written(name) for name in names]
    colour = VERDICT_COLOURS[report.verdict.name]
    figure = go.Figure()
    figure.add_shape(type="line", x0=0, x1=0, y0=-0.6, y1=len(names) - 0.4, line={"color": BEFORE, "width": 1})
    figure.add_shape(type="line", x0=1, x1=1, y0=-0.6, y1=len(names) - 0.4, line={"color": BEFORE, "width": 1})
    if threshold is not None:
        figure.add_shape(
            type="line", x0=threshold, x1=threshold, y0=-0.6, y1=len(names) - 0.4,
            line={"color": colour, "width": 1.5, "dash": "dot"},
        )  # fmt: skip
        figure.add_annotation(
            x=threshold, y=1, yref="paper", yanchor="bottom", text=f"threshold {threshold:g}", showarrow=False
        )
    figure.add_trace(
        go.Scatter(
            x=[clip(shown[n].value) for n in names],
            y=labels,
            mode="markers",
            marker={"size": 12, "color": [colour if n.startswith("residual") else BEFORE for n in names]},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [max(0.0, clip(shown[n].high) - clip(shown[n].value)) for n in names],
                "arrayminus": [max(0.0, clip(shown[n].value) - clip(shown[n].low)) for n in names],
                "thickness": 2,
                "width": 0,
                "color": BEFORE,
            },
            hovertext=[as_written(shown[n]) for n in names],
            hoverinfo="text",
            showlegend=False,
        )
    )
    for name in names:
        score = shown[name]
        figure.add_annotation(
            x=1.14, y=as_written(name), xanchor="left", showarrow=False, align="left",
            text=f"<b>{score.value:.2f}</b> [{score.low:.2f}, {score.high:.2f}]  n {score.n}".replace("-", "−"),
        )  # fmt: skip
    layout(figure, height=110 + 38 * max(1, len(names)))
    figure.update_xaxes(
        range=[-0.14, 1.75], tickvals=[0, 0.25, 0.5, 0.75, 1], showgrid=True,
        ticktext=["0<br>never taught", "0.25", "0.5", "0.75", "1<br>untouched"],
    )  # fmt: skip
    figure.update_yaxes(range=[-0.6, len(names) - 0.4], showgrid=False)
    return figure
