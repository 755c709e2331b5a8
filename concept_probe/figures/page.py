"""A figure as a piece of a page that works offline."""

from __future__ import annotations

import plotly.graph_objects as go
import plotly.offline


def script() -> str:
    """The drawing library itself, once per page."""
    return plotly.offline.get_plotlyjs()


def fragment(figure: go.Figure) -> str:
    """A figure as HTML that relies on `script` having been put into the page."""
    config = {"displaylogo": False, "displayModeBar": False, "responsive": True}
    return figure.to_html(full_html=False, include_plotlyjs=False, config=config)
