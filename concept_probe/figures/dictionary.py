"""An autoencoder's dictionary: how often features fire, how alike they are, whether other seeds find them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from concept_probe.figures.theme import AFTER, CONTROL, as_written, layout, tint
from concept_probe.types import Curve


def density(frequency: Sequence[float], control: Sequence[float] = (), *, title: str = "") -> go.Figure:
    """How many features fire how often: a histogram over the logarithm of the share of rows on which each fires.

    `control` are an untrained autoencoder's. Features that never fire have a bar of their own on the left.
    """
    living = [math.log10(v) for v in (*frequency, *control) if v > 0]
    low = math.floor(min(living, default=-1))
    figure = go.Figure()
    for name, values, colour in _both("this autoencoder", frequency, control):
        x = [math.log10(v) if v > 0 else low - 0.75 for v in values]
        figure.add_histogram(
            x=x, name=name, marker={"color": tint(colour, 0.6), "line": {"width": 0}},
            xbins={"start": low - 1, "end": 0.25, "size": 0.25},
            hovertemplate="%{y} features<extra>" + name + "</extra>",
        )  # fmt: skip
    layout(figure, title=title)
    ticks = list(range(low, 1))
    figure.update_layout(barmode="overlay", bargap=0.04, showlegend=bool(control))
    figure.update_xaxes(
        title="share of rows on which a feature fires", range=[low - 1.1, 0.1],
        tickvals=[low - 0.625, *ticks], ticktext=["never", *("1" if t == 0 else f"10<sup>{t}</sup>" for t in ticks)],
    )  # fmt: skip
    figure.update_yaxes(title="features")
    return figure


def nearest_cosines(cosine: Sequence[float], control: Sequence[float] = (), *, title: str = "") -> go.Figure:
    """How alike each decoder row is to the one most like it; `control` are as many random directions."""
    return _cosines("this autoencoder", cosine, control, "random directions", "cosine with the nearest row", title)


def stability_cosines(cosine: Sequence[float], control: Sequence[float] = (), *, title: str = "") -> go.Figure:
    """How well each feature is found by another seed; `control` looks for it in a random dictionary."""
    return _cosines("other seeds", cosine, control, "random dictionary", "largest cosine with a feature", title)


def splitting_curve(curve: Curve, *, title: str = "") -> go.Figure:
    """How well the best k features of a concept probe it, with its 95 % band, beside random features."""
    figure = go.Figure()
    x = list(curve.x)
    figure.add_scatter(
        x=x + x[::-1], y=[*curve.high, *curve.low[::-1]], fill="toself", fillcolor=tint(AFTER, 0.16),
        line={"width": 0}, mode="lines", hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    lines = [("the concept's features", curve.y, AFTER, "solid"), (curve.control_name, curve.control, CONTROL, "dash")]
    for name, y, colour, dash in lines:
        if y:
            figure.add_scatter(
                x=x, y=list(y), name=as_written(name or "control"), mode="lines+markers",
                line={"color": colour, "width": 2.5, "dash": dash}, marker={"size": 7},
            )  # fmt: skip
    layout(figure, title=title)
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title=as_written(curve.x_name), dtick=1 if len(x) <= 12 else None)
    figure.update_yaxes(title=as_written(curve.y_name), range=[0, 1.04])
    return figure


def _cosines(
    name: str, cosine: Sequence[float], control: Sequence[float], control_name: str, axis: str, title: str
) -> go.Figure:
    low = min([0.0, *cosine, *control])
    figure = go.Figure()
    for label, values, colour in _both(name, cosine, control, control_name):
        figure.add_histogram(
            x=list(values), name=label, histnorm="percent", marker={"color": tint(colour, 0.6), "line": {"width": 0}},
            xbins={"start": math.floor(low * 50) / 50, "end": 1.02, "size": 0.02},
            hovertemplate="%{y:.1f} % of features<extra>" + label + "</extra>",
        )  # fmt: skip
    layout(figure, title=title)
    figure.update_layout(barmode="overlay", bargap=0.04, showlegend=bool(control))
    figure.update_xaxes(title=axis, range=[low - 0.02, 1.02])
    figure.update_yaxes(title="% of features")
    return figure


def _both(
    name: str, values: Sequence[float], control: Sequence[float], control_name: str = "untrained"
) -> list[tuple[str, Sequence[float], str]]:
    # The control stands behind, so that what it hides is not what is asked about.
    both = [(control_name, control, CONTROL)] if len(control) else []
    return [*both, (name, values, AFTER)]
