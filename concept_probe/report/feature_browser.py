"""A catalogue of features as one HTML file that opens offline: search, sort, prompts with what fires marked."""

from __future__ import annotations

import base64
import math
from functools import cache
from html import escape
from pathlib import Path

from concept_probe.report.page import POLICY
from concept_probe.types import Catalogue, Example, FeatureEntry

SORTS = (("order", "as chosen"), ("selectivity", "most selective"), ("frequency", "most frequent"),
         ("rarity", "least frequent"), ("cosine", "nearest to a name"), ("index", "number"))  # fmt: skip
"""Keys of a card's data and what the page calls them."""


def to_browser(catalogue: Catalogue) -> str:
    """`catalogue` as one page: pictures, styles and scripts are inside, and nothing is fetched."""
    title = f"{len(catalogue.features)} features of {catalogue.site}"
    cards = "".join(_card(entry, at, catalogue) for at, entry in enumerate(catalogue.features))
    options = "".join(f'<option value="{key}">{escape(name)}</option>' for key, name in SORTS)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"{POLICY}<title>{escape(title)}</title><style>{_file('feature_browser.css')}</style></head><body>"
        f"<header><h1>{escape(title)}</h1>{_facts(catalogue)}</header>"
        '<nav><input id="search" type="search" placeholder="Search number, name or prompt" aria-label="Search">'
        f'<label>Sort <select id="sort">{options}</select></label><output id="count"></output></nav>'
        f'<main id="cards">{cards}</main>{_provenance(catalogue)}<script>{_file("feature_browser.js")}</script></body></html>\n'
    )


def _facts(c: Catalogue) -> str:
    names = ""
    if c.names_control is not None:
        names = (
            "<p><b>Names</b> are labels of prompts, by the cosine of what the feature writes with the label's mean "
            f"activation. 97.5 % of random directions stay under {c.names_control:.2f}; weaker ones are grey.</p>"
        )
    return (
        f'<div class="facts"><div><p>{escape(c.subject)}, {c.width:,} features, of which here: {escape(c.chosen_by)}. '
        f"Seen on {c.prompts:,} prompts, {c.rows:,} rows.</p>"
        "<p><b>Selectivity</b> is the AUROC of the label that a feature prefers. The label was chosen on one half of the "
        "prompts, the AUROC is of the other half, with its 95 % interval; the tick is what 97.5 % of shuffled labels "
        f"stay under.</p>{names}</div>{_histogram(c)}</div>"
    )


def _histogram(c: Catalogue) -> str:
    """How often all features fire, on a logarithmic scale, as a small drawing; those shown here are blue."""
    shown = {entry.index for entry in c.features}
    living = [(j, math.log10(v)) for j, v in enumerate(c.frequencies) if v > 0]
    never = len(c.frequencies) - len(living)
    if not living:
        return ""
    low = math.floor(min(v for _, v in living))
    bins = [[0, 0] for _ in range(4 * -low)] or [[0, 0]]
    for j, v in living:
        bins[min(len(bins) - 1, int(4 * (v - low)))][j in shown] += 1
    most = max(sum(b) for b in bins)
    wide, high = 320, 90
    step = wide / len(bins)
    bars = ""
    for i, (other, here) in enumerate(bins):
        a, b = high * (other + here) / most, high * here / most
        place = f'x="{i * step + 0.5:.1f}" width="{step - 1:.1f}"'
        bars += f'<rect {place} y="{high - a:.1f}" height="{a:.1f}"/><rect class="here" {place} y="{high - b:.1f}" height="{b:.1f}"/>'
    marks = "".join(
        f'<text x="{(d - low) / -low * wide:.0f}" y="{high + 14}" text-anchor="{_anchor(d, low)}">{_power(d)}</text>'
        for d in range(low, 1, max(1, -low // 4))
    )
    words = f"Share of rows on which each of {c.width:,} features fires; {never:,} never do"
    return (
        f'<figure><svg viewBox="0 -2 {wide} {high + 20}" role="img" aria-label="{words}">{bars}{marks}</svg>'
        f"<figcaption>{words}. Blue: shown here.</figcaption></figure>"
    )


def _anchor(d: int, low: int) -> str:
    return "start" if d == low else "end" if d == 0 else "middle"


def _power(d: int) -> str:
    return "1" if d == 0 else f'10<tspan dy="-4" font-size="8">{d}</tspan>'


def _card(entry: FeatureEntry, at: int, c: Catalogue) -> str:
    score = entry.selectivity
    cosine = entry.names[0][1] if entry.names else -1
    words = " ".join(
        [str(entry.index), entry.prefers, *(n for n, _ in entry.names), *(e.prompt for e in entry.examples)]
    )
    data = {
        "order": at, "index": entry.index, "frequency": entry.frequency, "rarity": -entry.frequency, "cosine": cosine,
        "selectivity": -1 if score is None else score.value, "words": words.lower(),
    }  # fmt: skip
    attributes = " ".join(f'data-{key}="{escape(str(value), quote=True)}"' for key, value in data.items())
    names = "".join(_name(name, value, c.names_control) for name, value in entry.names)
    warmest = max((v for e in entry.examples for row in e.patches for v in row), default=0.0)
    listed = "".join(_example(e, entry.strongest, warmest) for e in entry.examples)
    examples = listed or "<li>fires on none of the prompts</li>"
    head = f"<h2>{entry.index}</h2>" + (f"<p>prefers <b>{escape(entry.prefers)}</b></p>" if entry.prefers else "")
    return (
        f'<article id="feature-{entry.index}" {attributes}><div class="head">{head}{_selectivity(entry)}</div>'
        f'<p class="line">fires on <b>{100 * entry.frequency:.2g} %</b> of rows, at most {entry.strongest:.3g}</p>'
        f'<p class="names">{names}</p><ol>{examples}</ol></article>'
    )


def _selectivity(entry: FeatureEntry) -> str:
    s = entry.selectivity
    if s is None:
        return ""

    def place(v):
        return 100 * min(1.0, max(0.0, v))

    tick = "" if s.control is None else f'<u style="left:{place(s.control):.1f}%"></u>'
    words = f"AUROC {s.value:.2f}, 95 % interval {s.low:.2f} to {s.high:.2f}, n {s.n}" + (
        "" if s.control is None else f", shuffled labels {s.control:.2f}"
    )
    return (
        f'<div class="auroc" title="{words}"><span>{s.value:.2f}</span><div class="bar">'
        f'<i style="left:{place(s.low):.1f}%;width:{max(1.0, place(s.high) - place(s.low)):.1f}%"></i>'
        f'<b style="left:{place(s.value):.1f}%"></b>{tick}</div></div>'
    )


def _name(name: str, cosine: float, chance: float | None) -> str:
    kind = ' class="weak"' if chance is not None and cosine < chance else ""
    return f"<span{kind}>{escape(name)} <small>{cosine:.2f}</small></span>"


def _example(example: Example, strongest: float, warmest: float) -> str:
    scale = strongest or 1.0
    text = "".join(_token(piece, value / scale) for piece, value in example.tokens) or escape(example.prompt)
    return f"<li>{_picture(example, warmest or 1.0)}<p>{text}</p><small>{example.firing:.3g}</small></li>"


def _token(piece: str, share: float) -> str:
    edge = " " if piece.endswith(" ") else ""
    before = " " if piece.startswith(" ") else ""
    word = escape(piece.strip())
    if piece.startswith("⟨"):  # not a part of the text: its end, or what fills it up
        word, edge = f"<q>{word.strip('⟨⟩')}</q>", " "
    if share <= 0:
        return f"{before}{word}{edge}"
    return f'{before}<mark style="--a:{min(1.0, max(0.08, share)):.2f}">{word}</mark>{edge}'


def _picture(example: Example, scale: float) -> str:
    heat = ""
    if example.patches:
        cells = "".join(
            f'<i style="--a:{min(1.0, max(0.0, v / scale)):.2f}"></i>' if v > 0 else "<i></i>"
            for row in example.patches
            for v in row
        )
        heat = f'<span class="heat" style="--n:{len(example.patches[0])}">{cells}</span>'
    if example.png is None:
        return f'<span class="thumb">{heat}</span>' if heat else ""
    data = base64.b64encode(example.png).decode("ascii")
    alt = escape(example.prompt, quote=True)
    return f'<span class="thumb"><img src="data:image/png;base64,{data}" alt="{alt}" loading="lazy">{heat}</span>'


def _provenance(c: Catalogue) -> str:
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in c.provenance.items())
    return f"<footer><dl>{rows}</dl></footer>" if rows else ""


@cache
def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
