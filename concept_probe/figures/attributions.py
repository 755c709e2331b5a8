"""What a behaviour owes to each part of a model, and what is left as parts go."""

from __future__ import annotations

import plotly.graph_objects as go

from concept_probe.figures.theme import AFTER, CONTROL, as_written, layout, tint
from concept_probe.figures.traces import short
from concept_probe.types import Attribution, Curve

MOST_SHOWN = 24


def attribution(found: Attribution, *, most: int = MOST_SHOWN) -> go.Figure:
    """A bar for each of the `most` best players with its 95 % interval, and a mark for its matched random one.

    Raises ValueError where there is no player.
    """
    if not found.scores:
        raise ValueError("this attribution has no player, so there is nothing to draw")
    shown = [found.scores[i] for i in found.order()[:most]]
    names = [as_written(short(score.name)) for score in shown]
    figure = go.Figure()
    figure.add_bar(
        x=[s.value for s in shown], y=names, orientation="h", name="taken out", marker={"color": tint(AFTER, 0.75)},
        customdata=[as_written(s.name) for s in shown],
        error_x={"type": "data", "symmetric": False, "array": [s.high - s.value for s in shown],
                 "arrayminus": [s.value - s.low for s in shown], "thickness": 1.2, "width": 3},
        hovertemplate="%{customdata}<br>%{x:.3g}<extra></extra>",
    )  # fmt: skip
    if found.controls:
        figure.add_scatter(
            x=[s.control for s in shown], y=names, mode="markers", name="matched random",
            marker={"size": 9, "symbol": "diamond", "color": CONTROL}, hovertemplate="matched random %{x:.3g}<extra></extra>",
        )  # fmt: skip
    layout(
        figure,
        title=f"{found.summary} of {found.behaviour}, removal: {found.removal}",
        height=120 + 26 * len(shown),
    )
    figure.update_layout(showlegend=bool(found.controls))
    figure.update_xaxes(title=as_written(shown[0].unit or found.behaviour))
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False)
    return figure


def removal_curves(found: Attribution) -> go.Figure:
    """Deletion and insertion with their 95 % bands, each beside its mean in random orders (dashed).

    Raises ValueError where the ranking was not judged.
    """
    curves = [curve for curve in (found.deletion, found.insertion) if curve is not None]
    if not curves:
        raise ValueError("this ranking was not judged on other prompts, so there is no curve to draw")
    figure = go.Figure()
    for curve, colour in zip(curves, (AFTER, CONTROL), strict=False):
        _banded_line(figure, curve, colour)
    layout(figure, title=f"{found.behaviour} as players go and come")
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title="players taken out, or put back")
    figure.update_yaxes(title=as_written(curves[0].y_name))
    return figure


def _banded_line(figure: go.Figure, curve: Curve, colour: str) -> None:
    x, name = list(curve.x), as_written(curve.name)
    figure.add_scatter(
        x=x + x[::-1], y=[*curve.high, *curve.low[::-1]], fill="toself", fillcolor=tint(colour, 0.16), line={"width": 0},
        mode="lines", hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    figure.add_scatter(x=x, y=list(curve.y), name=name, mode="lines+markers", line={"color": colour, "width": 2.5})
    if curve.control:
        figure.add_scatter(
            x=x, y=list(curve.control), name=f"{name} {as_written(curve.control_name)}", mode="lines",
            line={"color": colour, "width": 1.5, "dash": "dash"},
        )  # fmt: skip
