"""One HTML page that opens offline: styles, figures and the library that draws them are inside."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from concept_probe import figures
from concept_probe.types.plain_text import shown_plainly

# Colours of the page go into the figures as they are drawn, so that one file serves light and dark screens.
_DRAW = """
const draw = () => {
  const css = name => getComputedStyle(document.body).getPropertyValue(name).trim();
  for (const node of document.querySelectorAll('.chart')) {
    const figure = JSON.parse(document.getElementById(node.dataset.figure).textContent);
    const layout = figure.layout;
    layout.font = {...layout.font, color: css('--ink')};
    for (const key of Object.keys(layout))
      if (/^[xy]axis\\d*$/.test(key)) Object.assign(layout[key], {gridcolor: css('--grid'), linecolor: css('--grid')});
    for (const trace of figure.data) if (trace.type === 'bar' && trace.error_y) trace.error_y.color = css('--ink');
    Plotly.react(node, figure.data, layout, {displayModeBar: false, responsive: true});
  }
};
draw();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
"""


POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; font-src data:; base-uri 'none'; form-action 'none'\">"
)
"""A second line behind escaped text: whatever stands in a page, it fetches and sends nothing."""


class Charts:
    """Figures of a page; each call puts one in its place."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}

    def __call__(self, figure: Any) -> str:
        name = f"figure-{len(self.figures)}"
        self.figures[name] = figure
        return f'<div class="chart" data-figure="{name}" style="height:{figure.layout.height or 360}px"></div>'


def page(title: str, body: str, charts: Charts) -> str:
    """The whole page around `body`, which holds the places of `charts`."""
    data = "".join(
        f'<script type="application/json" id="{name}">{_in_script(figure.to_json() or "null")}</script>'
        for name, figure in charts.figures.items()
    )
    body = shown_plainly(body)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"{POLICY}<title>{escape(shown_plainly(title))}</title><style>{style()}</style></head>"
        f'<body class="cp-report page"><main>{body}</main>{data}'
        f"<script>{figures.script()}</script><script>{_DRAW}</script></body></html>\n"
    )


def _in_script(text: str) -> str:
    """JSON that can stand inside a script element whatever its strings hold."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def style() -> str:
    """The rules of every page and fragment."""
    return (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
