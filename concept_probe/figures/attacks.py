"""What each attack brings back from each eraser."""

from __future__ import annotations

import plotly.graph_objects as go

from concept_probe.figures.theme import SEQUENTIAL, as_written, layout
from concept_probe.types import Leaderboard


def attacks(board: Leaderboard) -> go.Figure:
    """A heat map eraser × attack of success above the control, erasers from least to most recovered.

    Cells that were not measured are left open. Raises ValueError where nothing was attacked.
    """
    rows = [s for s in board.standings if s.attacks]
    if not rows:
        raise ValueError("no eraser was attacked, so there is nothing that came back")
    rows.sort(key=lambda s: s.recovered.value if s.recovered is not None else 1.0)
    figure = go.Figure(
        go.Heatmap(
            z=[[s.attacks[a].value if a in s.attacks else None for a in board.attacks] for s in rows],
            x=[as_written(a.replace("_", " ")) for a in board.attacks],
            y=[as_written(s.name) for s in rows],
            hovertemplate="%{y}<br>%{x}<br>%{z:.0%} above the control<extra></extra>",
            texttemplate="%{z:.0%}",
            textfont={"size": 10},
            colorscale=SEQUENTIAL,
            zmin=0,
            zmax=1,
            xgap=2,
            ygap=2,
            hoverongaps=False,
            colorbar={"title": {"text": "recovered"}, "tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
        )
    )
    layout(figure, height=170 + 24 * len(rows))
    figure.update_xaxes(showgrid=False, type="category", side="top", tickangle=-40)
    figure.update_yaxes(showgrid=False, type="category", autorange="reversed")
    figure.update_layout(margin={"t": 120})
    return figure
