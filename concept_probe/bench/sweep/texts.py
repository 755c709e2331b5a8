"""What a cell keeps of texts beside counts: text by text, so that a table can count facts over many concepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from concept_probe.detect.answers import answer_probability
from concept_probe.types import Query, Trial

if TYPE_CHECKING:
    from concept_probe.families import Subject


def of_each_text(subject: Subject, asked: Sequence[Query], trials: Sequence[Trial], label: str) -> dict[str, Any]:
    """Lists of one entry per text: `hits` and `mistaken` (said to show the concept, `label`) as 0 or 1, its `facts`,
    and where prompts have answers the `probability` of the right ones, to five digits."""
    prompts = [query.prompt for query in asked]
    out: dict[str, Any] = {
        "hits": [int(t.seen == t.query.prompt.label) for t in trials],
        "mistaken": [int(t.seen == label and t.query.prompt.label != label) for t in trials],
        "facts": [p.fact or p.text for p in prompts],
    }
    if all(p.answers for p in prompts):
        likely = answer_probability(subject, prompts)  # pyright: ignore[reportArgumentType]
        out["probability"] = [round(float(x), 5) for x in likely]
    return out
