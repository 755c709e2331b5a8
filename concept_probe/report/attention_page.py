"""Attention maps as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from jaxtyping import Float
from torch import Tensor

from concept_probe import figures
from concept_probe.report.page import Charts, page
from concept_probe.types.plain_text import shown_plainly


@dataclass(frozen=True)
class MapSection:
    """A heading, a sentence that says what is seen, and either named maps or a grid of them."""

    title: str
    says: str
    maps: Mapping[str, Float[Tensor, "h w"]] | None = None
    grid: Float[Tensor, "rows columns h w"] | None = None
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()


def attention_to_html(
    prompt: str, picture: Float[Tensor, "3 h w"], sections: Sequence[MapSection], facts: Mapping[str, str]
) -> str:
    """A page of maps over one picture; opens offline. `facts` say how they were made."""
    charts, body = Charts(), [f"<h1>{_shown(prompt)}</h1>"]
    for section in sections:
        body.append(f"<h2>{_shown(section.title)}</h2><p>{_shown(section.says)}</p>")
        if section.maps:
            body.append(charts(figures.attention_overlay(picture, section.maps)))
        if section.grid is not None:
            body.append(charts(figures.attention_grid(picture, section.grid, section.rows, section.columns)))
    rows = "".join(f"<tr><td>{_shown(name)}</td><td>{_shown(value)}</td></tr>" for name, value in facts.items())
    body.append(f"<h2>How it was made</h2><table>{rows}</table>")
    return page(prompt, "".join(body), charts)


def _shown(text: str) -> str:
    return escape(shown_plainly(text))
