"""Quantities against a budget or against a number of training samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from concept_probe.figures.theme import AFTER, CONTROL, as_written, layout, tint
from concept_probe.types import Curve


def recovery(curve: Curve, *, title: str | None = None) -> go.Figure:
    """A quantity against a budget with its 95 % band, beside the control under the same budget.

    What lies above the control is residual knowledge; what the control gains too was taught by the attack.
    """
    return _banded(curve, curve.name.replace("_", " ") if title is None else title)


def ladder(curve: Curve, *, title: str = "") -> go.Figure:
    """Detection against the number of concept vectors ablated, beside as many random columns."""
    return _banded(curve, title or curve.name)


def training(samples: Sequence[float], losses: Mapping[str, Sequence[float]], *, title: str = "") -> go.Figure:
    """Training of a sparse autoencoder: one line per quantity, on a logarithmic axis where all are positive."""
    figure = go.Figure()
    for name, values in losses.items():
        if len(values) != len(samples):
            raise ValueError(f"{name!r} has {len(values)} values for {len(samples)} points of `samples`")
        figure.add_scatter(x=list(samples), y=list(values), name=as_written(name), mode="lines", line={"width": 2})
    layout(figure, title=title)
    positive = all(v > 0 for values in losses.values() for v in values)
    figure.update_xaxes(title="samples seen")
    figure.update_yaxes(type="log" if positive else "linear", dtick=1 if positive else None)
    figure.update_layout(showlegend=True)
    return figure


def _banded(curve: Curve, title: str) -> go.Figure:
    figure = go.Figure()
    x = list(curve.x)
    figure.add_scatter(
        x=x + x[::-1], y=[*curve.high, *curve.low[::-1]], fill="toself", fillcolor=tint(AFTER, 0.16),
        line={"width": 0}, mode="lines", hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=x, y=list(curve.y), name="erased", mode="lines+markers", line={"color": AFTER, "width": 2.5},
        marker={"size": 7},
    )  # fmt: skip
    if curve.control:
        figure.add_scatter(
            x=x, y=list(curve.control), name=as_written(curve.control_name or "control"), mode="lines+markers",
            line={"color": CONTROL, "width": 2.5, "dash": "dash"}, marker={"size": 7, "symbol": "diamond"},
        )  # fmt: skip
    layout(figure, title=title)
    figure.update_layout(showlegend=True)
    top = max((*curve.high, *curve.y, *curve.control), default=1.0)
    figure.update_xaxes(title=as_written(curve.x_name))
    figure.update_yaxes(title=as_written(curve.y_name), range=[-0.03, 1.06] if top <= 1 else None, rangemode="tozero")
    if min((*curve.low, *curve.y), default=0.0) >= 0 and top <= 1:
        figure.update_yaxes(tickvals=[0, 0.25, 0.5, 0.75, 1], tickformat=".0%")
    return figure
