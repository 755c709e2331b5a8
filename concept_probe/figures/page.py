"""What a page needs to draw figures offline."""

from __future__ import annotations

import plotly.offline


def script() -> str:
    """The drawing library itself, to be put into a page once."""
    return plotly.offline.get_plotlyjs()
