"""Where in the model, and when, a measurement still sees the concept."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from concept_probe.figures.theme import SEQUENTIAL, as_written, layout
from concept_probe.types import TraceMap


def trace(traces: TraceMap, *, low: float | None = None, high: float | None = None) -> go.Figure:
    """Heat maps site × column: before, after and, where there is one, the control, on one colour scale.

    `low` and `high` are the ends of the scale; by default those of the data.
    """
    panels = [("before", traces.before), ("after", traces.after)]
    panels += [("control", traces.control)] if traces.control else []
    values = [v for _, table in panels for row in table for v in row if v == v]
    low = min(values, default=0.0) if low is None else low
    high = max(values, default=1.0) if high is None else high
    figure = make_subplots(
        rows=1, cols=len(panels), shared_yaxes=True, subplot_titles=[n for n, _ in panels], horizontal_spacing=0.03
    )
    # Shown only where the numbers fit their cells; the colours and hovers say the same.
    written = len(traces.columns) * len(panels) <= 18
    for at, (name, table) in enumerate(panels, start=1):
        figure.add_trace(
            go.Heatmap(
                z=[list(row) for row in table],
                x=list(map(as_written, traces.columns)),
                y=[as_written(short(row)) for row in traces.rows],
                customdata=[[as_written(row)] * len(traces.columns) for row in traces.rows],
                hovertemplate="%{customdata}<br>%{x}<br>" + name + " %{z:.3f}<extra></extra>",
                coloraxis="coloraxis",
                xgap=2,
                ygap=2,
                texttemplate="%{z:.2f}" if written else None,
            ),
            row=1,
            col=at,
        )
    layout(figure, height=140 + 30 * len(traces.rows))
    figure.update_layout(
        coloraxis={"colorscale": SEQUENTIAL, "cmin": low, "cmax": high if high > low else low + 1,
                   "colorbar": {"title": {"text": as_written(traces.unit or ""), "side": "right"}, "thickness": 12, "outlinewidth": 0}}
    )  # fmt: skip
    figure.update_xaxes(showgrid=False, type="category")
    figure.update_yaxes(showgrid=False, autorange="reversed", type="category")
    return figure


def short(address: str, limit: int = 44) -> str:
    """An address that fits beside a figure: its end is what tells sites apart."""
    return address if len(address) <= limit else "…" + address[-(limit - 1) :]
