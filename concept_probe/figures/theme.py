"""One look for every figure: colours that mean the same thing everywhere, and room for labels."""

from __future__ import annotations

import re

import plotly.graph_objects as go

from concept_probe.types.plain_text import shown_plainly

BEFORE, AFTER, CONTROL = "#7a869a", "#2f6fde", "#c9862b"
"""The model as it came, the model with the erasure on, and what a model that never knew would show."""
GOOD, WARN, BAD = "#2a9d6f", "#d98e04", "#cf4a3f"
INK, GRID = "#39424e", "rgba(120, 130, 145, 0.25)"
FONT = "Inter, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
SEQUENTIAL = [[0.0, "#f3f6fb"], [0.35, "#a9c4f0"], [0.7, "#3f78d8"], [1.0, "#122f6b"]]
VERDICT_COLOURS = {"intact": BAD, "suppressed": WARN, "erased": GOOD, "damaged": BAD, "undecided": BEFORE}


_ACTS = re.compile(r"[&<>$]|%(?=\{)")


def as_written(text: object) -> str:
    """`text` of others, so that a figure shows it as it is written: plotly takes `<b>` and `&lt;` for HTML, `%{x}` for a
    place to fill in, and what stands between two $ for mathematics.

    >>> as_written("a<br>b & c")
    'a&#60;br&#62;b &#38; c'
    """
    return _ACTS.sub(lambda found: f"&#{ord(found.group())};", shown_plainly(text, keep=""))


def layout(figure: go.Figure, *, title: str = "", height: int = 340, width: int | None = None) -> go.Figure:
    """`figure` in the common look, with a title in anybody's words; transparent, so that a page's own background shows through."""
    figure.update_layout(
        template="none",
        font={"family": FONT, "size": 13, "color": INK},
        title={"text": as_written(title), "x": 0, "xref": "container", "xanchor": "left", "y": 1, "yref": "container",
               "yanchor": "top", "pad": {"t": 14, "l": 12}, "font": {"size": 15}} if title else None,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 64, "r": 20, "t": 56 if title else 28, "b": 56},
        height=height,
        width=width,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "right", "x": 1},
        hoverlabel={"font": {"family": FONT}},
        colorway=[AFTER, CONTROL, BEFORE, GOOD, BAD, WARN],
    )  # fmt: skip
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "ticks": "", "automargin": True}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def tint(colour: str, alpha: float) -> str:
    """A `#rrggbb` colour made transparent."""
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r}, {g}, {b}, {alpha})"
