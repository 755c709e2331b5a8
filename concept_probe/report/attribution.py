"""An attribution as JSON, exactly, and as HTML."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from concept_probe import figures
from concept_probe.report.audit_json import decoded_value, encoded_value
from concept_probe.report.page import Charts, page
from concept_probe.storage import SEAL, CorruptFile, WrongFile, check_seal, parse_json, seal_of
from concept_probe.types import Attribution, Score
from concept_probe.types.plain_text import shown_plainly

ATTRIBUTION_SCHEMA = "concept_probe.attribution/1"
_MEND = "give the attribution.json that attribute wrote"


def attribution_to_json(found: Attribution) -> str:
    """As sealed JSON text, which `attribution_from_json` gives back exactly."""
    data = {"schema": ATTRIBUTION_SCHEMA, **encoded_value(found)}
    return json.dumps({**data, SEAL: seal_of(data)}, ensure_ascii=False, indent=1, allow_nan=False)


def attribution_from_json(text: str, where: str | Path = "this") -> Attribution:
    """What `attribution_to_json` was given. WrongFile for what is no attribution, CorruptFile for one that was altered."""
    data = parse_json(text, f"{where} is not JSON", _MEND)
    if not isinstance(data, dict) or data.get("schema") != ATTRIBUTION_SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise WrongFile(where, f"it is not an attribution: its schema is {found!r}, not {ATTRIBUTION_SCHEMA!r}", _MEND)
    try:
        fields = {name: one for name, one in data.items() if name not in ("schema", SEAL)}
        out = decoded_value(Attribution, fields, "attribution")
    except ValueError as error:
        raise CorruptFile(where, str(error), _MEND) from None
    check_seal(where, data, _MEND)
    return out


def attribution_to_html(found: Attribution) -> str:
    """One page that opens offline: what was asked, a bar for each player, and the curves that judge their order."""
    charts = Charts()
    title = f"{found.behaviour} of {found.concept} in {found.subject}: {found.summary}"
    curves = charts(figures.removal_curves(found)) if found.deletion or found.insertion else ""
    return page(
        title,
        f"<h1>{_text(title)}</h1>{_said(found)}{charts(figures.attribution(found))}{curves}{_table(found)}",
        charts,
    )


def _said(found: Attribution) -> str:
    gap = "" if found.gap is None else f" The scores add up to that difference within {found.gap:.2g}."
    area = ""
    if found.deletion_area is not None:
        area = (
            f"<p>Mean of the deletion curve: {_number(found.deletion_area)}. Low is good; the control takes players out in "
            "random orders.</p>"
        )
    return (
        f"<p>{_text(found.behaviour)} is {_number(found.whole)} with everything there, and {_number(found.none)} with all "
        f"{len(found.scores)} players taken out by {_text(found.removal)}.{gap} Scored on the {found.split} split; "
        f"{found.answers:,} answers.</p>{area}"
    )


def _table(found: Attribution) -> str:
    rows = "".join(
        f"<tr><td>{_text(s.name)}</td><td>{s.value:.3g}</td><td>{s.low:.3g} – {s.high:.3g}</td>"
        f"<td>{'' if s.control is None else f'{s.control:.3g}'}</td></tr>"
        for s in (found.scores[i] for i in found.order())
    )
    heads = "".join(f"<th>{head}</th>" for head in ("player", "score", "95 % interval", "matched random"))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _number(score: Score) -> str:
    control = "" if score.control is None else f", control {score.control:.3g}"
    return f"{score.value:.3g} ({score.low:.3g} – {score.high:.3g}{control}; n {score.n})"


def _text(text: str) -> str:
    return escape(shown_plainly(text))
