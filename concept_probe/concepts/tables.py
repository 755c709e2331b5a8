"""A concept from a table of prompts that says what each shows, as benchmarks of erasure from pictures are published."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from concept_probe.concepts.benchmarks import dealt
from concept_probe.concepts.prompt_files import read_prompts
from concept_probe.registry import UnknownName
from concept_probe.types import Concept, Prompt, Splits

LEAST_PROMPTS = 3
"""Prompts on a concept, at least: one for each split."""


def concept_of_table(path: str | Path, name: str) -> Concept:
    """The concept `name` of a table that `read_prompts` reads.

    >>> concept_of_table("big_artist_prompts.csv", "Vincent van Gogh")

    Prompts whose label (`label`, `class` or `artist`) is the name, whatever its case, are the target, those with another
    label neighbours, and those without one unrelated. In a table without labels every prompt is the target. A prompt that
    stands there with several seeds is one. Prompts are dealt out to the splits as by `dealt`.

    Warns that seeds and guidance of the table are left out: a concept has none, and `read_prompts` keeps them. Raises
    as `read_prompts` does; UnknownName for a label that the table lacks, ValueError for fewer than `LEAST_PROMPTS` prompts.
    """
    listed = read_prompts(path)
    prompts = [query.prompt for query in listed.queries]
    labels = dict.fromkeys(p.label for p in prompts if p.label is not None)
    if labels and not any(_same(label, name) for label in labels):
        raise UnknownName("label", name, labels, f"in {path}")
    kinds: dict[str, list[Prompt]] = {"target": [], "neighbours": [], "unrelated": []}
    for p in prompts:
        label = name if not labels or _same(p.label or "", name) else p.label
        kind = "unrelated" if label is None else "target" if label == name else "neighbours"
        kinds[kind].append(Prompt(p.text, _named(p.text, label), label))
    if (found := len({p.text for p in kinds["target"]})) < LEAST_PROMPTS:
        raise ValueError(
            f"{path} holds {found} prompts on {name!r}, and a concept needs {LEAST_PROMPTS}, one for each of fit, select and test; "
            "write more, or a concept file"
        )
    if listed.guidance or any(query.seed for query in listed.queries):
        warnings.warn(
            f"{path}: each prompt's own seed and guidance are left out of the concept, which has none; "
            "read_prompts(path).queries keeps them",
            stacklevel=2,
        )
    target, neighbours, unrelated = (dealt(own) if own else Splits() for own in kinds.values())
    return Concept(name, target, neighbours=neighbours, unrelated=unrelated)


def _same(one: str, other: str) -> bool:
    """Whether two names differ in case and in what stands between their words alone."""
    first, second = (re.findall(r"[^\W_]+", text.casefold()) for text in (one, other))
    return first == second


def _named(text: str, label: str | None) -> str | None:
    """The words of a text that are the label, as they stand there."""
    found = re.search(re.escape(label), text, re.I) if label else None
    return found[0] if found else None
