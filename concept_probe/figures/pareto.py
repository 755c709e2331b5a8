"""Erasers against each other: what comes back, what is kept, and what was erased at all."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from concept_probe.figures.theme import AFTER, BAD, BEFORE, GOOD, WARN, as_written, layout, tint
from concept_probe.types import Leaderboard, Score, Standing

SYMBOLS = {"ours": "diamond", "published": "circle", "control": "x"}
PART_NAMES = {"ours": "this project", "published": "published", "control": "control"}


def pareto(board: Leaderboard) -> go.Figure:
    """One point per eraser: right is less recovered, up is more kept, the colour says how much was erased.

    The line joins those that no other beats on both; they, this project's methods and the controls have their names
    beside them, all others where the mouse is. Bars are 95 % intervals, cut off at the frame. Raises ValueError where nothing was
    attacked.
    """
    able = [s for s in board.standings if s.recovered is not None]
    if not able:
        raise ValueError("no eraser was attacked, so there is nothing that came back")
    figure = go.Figure()
    line = sorted((s for s in able if s.name in board.front), key=lambda s: _x(s))
    figure.add_scatter(
        x=[_x(s) for s in line], y=[s.kept.value for s in line], mode="lines", name="front",
        line={"color": BEFORE, "width": 1.5, "dash": "dot"}, hoverinfo="skip",
    )  # fmt: skip
    for part, symbol in SYMBOLS.items():
        of = [s for s in able if s.part == part]
        if of:
            figure.add_trace(_points(of, part, symbol, board.front))
    layout(figure, height=560)
    least = min(s.kept.value for s in able)
    figure.update_xaxes(title="resists recovery: 1 − success of attacks above the control", tickformat=".0%")
    figure.update_yaxes(
        title="kept: others recognised, relative to before", tickformat=".0%", range=[least - 0.08, 1.15]
    )
    figure.update_layout(showlegend=True, coloraxis={
        "colorscale": [[0, BAD], [0.6, WARN], [1, GOOD]], "cmin": 0, "cmax": 1,
        "colorbar": {"title": {"text": "erased"}, "tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
    })  # fmt: skip
    return figure


def _points(of: Sequence[Standing], part: str, symbol: str, front: Sequence[str]) -> go.Scatter:
    recovered = [s.recovered for s in of if s.recovered is not None]
    return go.Scatter(
        x=[_x(s) for s in of],
        y=[s.kept.value for s in of],
        mode="markers+text",
        text=[as_written(s.name) if s.name in front or part != "published" else "" for s in of],
        textposition=["top center" if i % 2 else "bottom center" for i in range(len(of))],
        textfont={"size": 11},
        name=PART_NAMES[part],
        marker={
            "size": 14 if part == "ours" else 10, "symbol": symbol, "color": [s.erased.value for s in of],
            "coloraxis": "coloraxis", "line": {"width": 2 if part == "ours" else 0, "color": AFTER},
        },
        error_x=_bars([1 - r.value for r in recovered], [1 - r.high for r in recovered], [1 - r.low for r in recovered]),
        error_y=_bars([s.kept.value for s in of], [s.kept.low for s in of], [s.kept.high for s in of]),
        hovertext=[
            f"<b>{as_written(s.name)}</b><br>erased {_said(s.erased)}<br>kept {_said(s.kept)}<br>recovered {_said(s.recovered)}"
            + (f"<br>worst attack: {as_written(s.worst.name)} {_said(s.worst)}" if s.worst else "")
            for s in of
        ],
        hoverinfo="text",
    )  # fmt: skip


def _x(s: Standing) -> float:
    return 1 - (s.recovered.value if s.recovered is not None else 0.0)


def _bars(at: Sequence[float], low: Sequence[float], high: Sequence[float]) -> dict:
    return {
        "type": "data", "symmetric": False, "thickness": 0.8, "width": 0, "color": tint(BEFORE, 0.45),
        "array": [max(0.0, h - v) for v, h in zip(at, high, strict=True)],
        "arrayminus": [max(0.0, v - x) for v, x in zip(at, low, strict=True)],
    }  # fmt: skip


def _said(s: Score | None) -> str:
    return "–" if s is None else f"{s.value:.0%} [{s.low:.0%}, {s.high:.0%}]"
