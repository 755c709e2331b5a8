"""A leaderboard as HTML, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape

from concept_probe import figures
from concept_probe.report.markdown import cell, escaped
from concept_probe.report.page import Charts, page
from concept_probe.types import Leaderboard, Score, Standing
from concept_probe.types.plain_text import shown_plainly

STANDING_HEADS = ("eraser", "erased ↑", "in other words ↑", "kept ↑", "other domain ↑", "harmonic mean ↑", "recovered ↓",
         "worst attack ↓", "recovery area ↓", "pixels moved", "mmd", "fit", "numbers")  # fmt: skip
QUALITY_HEADS = ("eraser", "nothing seen ↓", "CLIP score kept ↑", "CLIP score target ↓", "FID ↓", "CMMD ↓", "m1 ↑", "m2 ↑",
            "m3 ↑", "m4 ↑", "EraseEval ↑")  # fmt: skip
COLUMN_MEANINGS = {
    "erased": "1 − detection on prompts that name the concept (unlearning accuracy, UA).",
    "in other words": "The same on paraphrases and descriptions: whether the erasure generalises.",
    "kept": "Neighbours and unrelated things that are recognised, as a share of the untouched model's (in-domain retain "
    "accuracy, IRA).",
    "other domain": "The same for styles where an object was erased, and for objects where a style was (CRA).",
    "harmonic mean": "Of erased, in other words, and kept up to 1.",
    "recovered": "Success of an attack above the control, mean over the attacks that all compared erasers met on "
    "the same pairs.",
    "worst attack": "The attack that brings back most of this eraser's concepts.",
    "recovery area": "Area under success against budget, over the budget's length, above that of the control; mean over the "
    "same attacks. An attack that succeeds early has more of it.",
    "pixels moved": "Mean absolute difference of the pictures of other things before and after; in brackets that of two "
    "draws of the untouched model.",
    "mmd": "Discrepancy of the same pictures as sets; in brackets that of two draws of the untouched model.",
    "fit": "Seconds to find, choose and fit, for one concept.",
    "numbers": "How many numbers the edit of the weights stores; 0 acts while the model runs.",
}
QUALITY_MEANINGS = {
    "nothing seen": "Share of all pictures in which the recogniser sees nothing that it knows (artefacts, or an answer that "
    "was refused); in brackets the untouched model's.",
    "CLIP score": "Mean cosine of a picture and its prompt, of what must stay and of the concept; in brackets before.",
    "FID, CMMD": "Distance of the pictures of other things before and after as sets, in the recogniser's and in CLIP's "
    "features; in brackets that of two draws of the untouched model. FID of few pictures is mostly bias: read it beside "
    "its bracket.",
    "m1, m2": "Prompts that name the concept, and descriptions: how well pictures fit what the concept was led to, or the "
    "prompt's rest, 0 where the concept is still seen (EraseEval, arXiv 2502.13989). 1 is a perfect erasure.",
    "m3, m4": "What must stay: CLIP score as a share of that before, and 1 − discrepancy of CLIP embeddings.",
    "EraseEval": "Harmonic mean of m1 to m4.",
}
WITHOUT_CONTROL = (
    "No attack of this sweep has a control, so a success can't be told from chance: nothing says what is recovered. Run it "
    "with a never-taught twin, or with attacks that bring a control of their own."
)
"""Said in place of what is recovered."""
DIFFERENCES_LISTED = 15
"""At most so many differences of a measure are listed."""


def board_title(board: Leaderboard) -> str:
    """How many erasers are compared; one that met fewer pairs or attacks than the others is named apart."""
    erasers = [s for s in board.standings if s.part != "control"]
    compared = sum(s.recovered is not None for s in erasers)
    if not compared or compared == len(erasers):
        return f"{len(erasers)} erasers on {board.subject}"
    return f"{compared} erasers on {board.subject}, and {len(erasers) - compared} in part"


def board_to_json(board: Leaderboard) -> str:
    """Everything, numbers unrounded."""
    return json.dumps({"schema": "concept_probe.leaderboard/1", **asdict(board)}, ensure_ascii=False, indent=1) + "\n"


def board_to_markdown(board: Leaderboard) -> str:
    """Tables that read well in a terminal or on a page."""
    out = [
        f"# {escaped(board_title(board))}",
        "",
        escaped(_about(board)),
        "",
        *_table(STANDING_HEADS, [_cells(s) for s in board.standings]),
    ]
    out += ["", *[f"- **{name}**: {said}" for name, said in COLUMN_MEANINGS.items()]]
    if board.front:
        out += [
            "",
            f"On the front (no other is as good in recovered and kept, and better in one): {', '.join(_front(board))}.",
        ]
    if board.attacks and not _has_recovered(board):
        out += ["", "## Recovered, by attack", "", WITHOUT_CONTROL]
    elif board.attacks:
        heads = ("eraser", *board.attacks)
        rows = [(_marked(s), *(_percent(s.attacks.get(a)) for a in board.attacks)) for s in board.standings]
        out += [
            "",
            "## Recovered, by attack",
            "",
            f"Success above the control: {escaped(board.control)}.",
            "",
            *_table(heads, rows),
        ]
    if len(board.concepts) > 1:
        out += ["", "## Erased, by concept", "", *_table(("eraser", *board.concepts), _by_concept(board))]
    if any(_has_quality(s) for s in board.standings):
        out += ["", "## Quality of pictures", "", *_table(QUALITY_HEADS, [_quality(s) for s in board.standings])]
        out += ["", *[f"- **{name}**: {said}" for name, said in QUALITY_MEANINGS.items()]]
    out += ["", "## Differences that hold", "", _tested(board), ""]
    out += [f"- {escaped(line)}" for line in _differences(board)] or ["None."]
    if board.notes:
        out += ["", "## What is missing", "", *[f"- {escaped(note)}" for note in board.notes]]
    if board.provenance:
        out += ["", "## Provenance", "", *[f"- {escaped(k)}: {escaped(v)}" for k, v in board.provenance.items()]]
    return "\n".join(out) + "\n"


def board_to_html(board: Leaderboard) -> str:
    """One page that opens offline, in the look of a report."""
    charts = Charts()
    return page(board_title(board), "".join(_sections(board, charts)), charts)


def _sections(board: Leaderboard, chart: Charts) -> Iterable[str]:
    yield f"<h1>{escape(board_title(board))}</h1><p class=intro>{escape(_about(board))}</p>"
    if any(s.recovered is not None for s in board.standings):
        yield "<h2>What is erased, kept and recovered</h2><p class=intro>Up and right is better. The dotted line joins the "
        yield "erasers that no other beats: as good in both, and better in one.</p>" + chart(figures.pareto(board))
    known = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in COLUMN_MEANINGS.items())
    yield "<h2>Leaderboard</h2>" + _html_table(STANDING_HEADS, [_cells(s) for s in board.standings], board)
    yield f"<details><summary>What each column is</summary><dl class=words>{known}</dl></details>"
    if board.attacks and not _has_recovered(board):
        yield f"<h2>Recovered, by attack</h2><p class=intro>{escape(WITHOUT_CONTROL)}</p>"
    elif board.attacks:
        rows = [(_marked(s), *(_percent(s.attacks.get(a)) for a in board.attacks)) for s in board.standings]
        yield f"<h2>Recovered, by attack</h2><p class=intro>Success above the control: {escape(board.control)}.</p>"
        yield _html_table(("eraser", *board.attacks), rows, board)
    if len(board.concepts) > 1:
        yield "<h2>Erased, by concept</h2>" + _html_table(("eraser", *board.concepts), _by_concept(board), board)
    if any(_has_quality(s) for s in board.standings):
        known = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in QUALITY_MEANINGS.items())
        yield "<h2>Quality of pictures</h2>" + _html_table(QUALITY_HEADS, [_quality(s) for s in board.standings], board)
        yield f"<details><summary>What each column is</summary><dl class=words>{known}</dl></details>"
    lines = "".join(f"<li>{escape(line)}</li>" for line in _differences(board))
    yield f"<h2>Differences that hold</h2><p class=intro>{escape(_tested(board))}</p>"
    yield f"<ul>{lines}</ul>" if lines else "<p>None.</p>"
    if board.notes:
        yield "<h2>What is missing</h2><ul>" + "".join(f"<li>{escape(n)}</li>" for n in board.notes) + "</ul>"
    if board.provenance:
        rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in board.provenance.items())
        yield f"<h2>Provenance</h2><dl>{rows}</dl>"


def _about(board: Leaderboard) -> str:
    blocks = max((s.blocks for s in board.standings), default=0)
    over = f"Recovered is over {board.pairs} pairs and these: {', '.join(board.compared)}. " if board.compared else ""
    return (
        f"Concepts: {', '.join(board.concepts)}. Seeds: {', '.join(map(str, board.seeds))}. "
        f"{len(board.attacks)} attacks: {', '.join(board.attacks) or 'none'}. {over}Each number is a mean over up to {blocks} "
        "pairs of a concept and a seed; brackets hold 95 % intervals of a bootstrap over these pairs. "
        "Bold: methods of this project. Italic: controls."
    )


def _tested(board: Leaderboard) -> str:
    n = max((d.n for d in board.differences), default=0)
    least = f"With {n} pairs p is never under {2 / 2**n:.2g}. " if 0 < n <= 16 else ""
    return (
        "Two-sided sign-flip tests over pairs of a concept and a seed, with Holm's correction over all pairs of compared "
        f"erasers of a measure. {least}They generalise to other seeds on these concepts, not to other concepts."
    )


def _differences(board: Leaderboard) -> list[str]:
    held = sorted(
        (d for d in board.differences if d.adjusted < 0.05), key=lambda d: (d.measure, d.adjusted, -abs(d.value))
    )
    shown = [
        d
        for m in dict.fromkeys(d.measure for d in held)
        for d in [x for x in held if x.measure == m][:DIFFERENCES_LISTED]
    ]
    lines = [
        f"{d.measure}: {d.first} {'+' if d.value > 0 else '−'}{abs(d.value):.0%} against {d.second} "
        f"(adjusted p {d.adjusted:.2g}, n {d.n})"
        for d in shown
    ]
    return lines + ([f"and {len(held) - len(shown)} more, in the JSON"] if len(held) > len(shown) else [])


def _cells(s: Standing) -> tuple[str, ...]:
    worst = "–" if s.worst is None else f"{_percent(s.worst)} {s.worst.name}"
    return (
        _marked(s), _interval(s.erased), _interval(s.general), _interval(s.kept), _interval(s.across),
        _interval(s.harmonic), _interval(s.recovered), worst, _interval(s.area),
        _against(s.distances, "pixels kept", "pixels control", "{:.3f}"),
        _against(s.distances, "mmd kept", "mmd control", "{:.3f}"),
        "–" if "seconds" not in s.costs else f"{s.costs['seconds']:.1f} s",
        "–" if "numbers" not in s.costs else f"{s.costs['numbers']:,.0f}",
    )  # fmt: skip


def _by_concept(board: Leaderboard) -> list[tuple[str, ...]]:
    return [
        (_marked(s), *(f"{s.concepts[c]:.0%}" if c in s.concepts else "–" for c in board.concepts))
        for s in board.standings
    ]


def _quality(s: Standing) -> tuple[str, ...]:
    q, blank = s.quality, s.unnamed is None
    bracket = "" if s.unnamed is None or s.unnamed.control is None else f" ({s.unnamed.control:.0%})"
    return (
        _marked(s), "–" if blank else _interval(s.unnamed) + bracket,
        _against(q, "clip kept", "clip kept before", "{:.2f}"), _against(q, "clip target", "clip target before", "{:.2f}"),
        _against(q, "fid kept", "fid control", "{:.1f}"), _against(q, "cmmd kept", "cmmd control", "{:.2f}"),
        *("–" if m not in q else f"{q[m]:.2f}" for m in ("m1", "m2", "m3", "m4")), _interval(s.criteria),
    )  # fmt: skip


def _has_recovered(board: Leaderboard) -> bool:
    """Whether any attack on any eraser has a control to be above."""
    return any(s.attacks for s in board.standings)


def _has_quality(s: Standing) -> bool:
    return s.unnamed is not None or bool(s.quality)


def _against(values: Mapping[str, float], name: str, control: str, form: str) -> str:
    """A value, and in brackets what it is compared with."""
    if name not in values:
        return "–"
    text = form.format(values[name]) + (f" ({form.format(values[control])})" if control in values else "")
    return text.replace("-", "−")


def _marked(s: Standing) -> str:
    name = escaped(s.name)
    return {"ours": f"**{name}**", "control": f"*{name}*"}.get(s.part, name)


def _front(board: Leaderboard) -> list[str]:
    marked = {s.name: _marked(s) for s in board.standings}
    return [marked.get(name, name) for name in board.front]


def _percent(s: Score | None) -> str:
    return "–" if s is None else f"{s.value:.0%}".replace("-", "−")


def _interval(s: Score | None) -> str:
    if s is None:
        return "–"
    return f"{s.value:.0%} [{100 * s.low:.0f}, {100 * s.high:.0f}]".replace("-", "−")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(first, rest):
        return " | ".join(("| " + shown_plainly(first, "").replace("|", "\\|"), *map(cell, rest))) + " |"

    made = [line(row[0], row[1:]) for row in rows]  # a row's name is marked already
    return [line(escaped(heads[0]), heads[1:]), "|---|" + "---:|" * (len(heads) - 1), *made]


def _html_table(heads: Sequence[str], rows: Sequence[Sequence[str]], board: Leaderboard) -> str:
    head = "".join(f'<th scope="col"{" class=n" if i else ""}>{escape(h)}</th>' for i, h in enumerate(heads))
    body = ""
    for standing, row in zip(board.standings, rows, strict=True):
        tag = {"ours": "b", "control": "i"}.get(standing.part, "span")
        first = f'<th scope="row"><{tag}>{escape(standing.name)}</{tag}></th>'
        cells = "".join(
            f'<td class="n" data-head="{escape(h)}">{_small(c)}</td>' for h, c in zip(heads[1:], row[1:], strict=True)
        )
        body += f"<tr>{first}{cells}</tr>"
    return (
        f'<div class="scroll"><table class="findings"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _small(cell: str) -> str:
    """The interval, or the name of an attack, in small type behind the number."""
    number, space, rest = cell.partition(" ")
    return f"<b>{escape(number)}</b><small>{escape(rest)}</small>" if space else escape(cell)
