"""What an audit refuses: prompts that were used before, and a recogniser that can't see the concept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from concept_probe.registry import nearest
from concept_probe.types import KINDS, Concept, Judge, Kind, Split, fingerprint


class UsedPrompts(ValueError):
    """Test prompts that something was fitted or selected on."""


def refuse_used(concept: Concept, erasure: object | None) -> None:
    """Raise UsedPrompts if a test prompt is also a fit or select prompt of any kind, or the erasure says it used it.

    An erasure says so under a key of `made_by` that holds the word `prompts`, by text or fingerprint.
    """
    # An anchor says what to draw instead: it is told to the eraser, and nothing is tested on it.
    kinds: list[Kind] = [kind for kind in KINDS if kind != "anchor"]
    earlier: tuple[Split, ...] = ("fit", "select")
    tests = {fingerprint(p.text): p.text for kind in kinds for p in concept.prompts(kind, "test")}
    used: dict[str, str] = {}
    for kind in kinds:
        for split in earlier:
            for p in concept.prompts(kind, split):
                if fingerprint(p.text) in tests:
                    used[fingerprint(p.text)] = f"{p.text!r} ({kind}, {split})"
    for text in _texts(getattr(erasure, "made_by", {})):
        key = text if text in tests else fingerprint(text)
        if key in tests:
            used[key] = f"{tests[key]!r} (told to the erasure)"
    if used:
        shown = "; ".join(list(used.values())[:8]) + ("; ..." if len(used) > 8 else "")
        raise UsedPrompts(
            f"audit of {concept.name!r}: {len(used)} test prompts were used to fit or select: {shown}. "
            "Numbers on them say nothing about other prompts; take them out of one side"
        )


def _texts(made_by: object, inside: bool = False) -> Iterator[str]:
    """Every string under a key that holds the word `prompts`."""
    if isinstance(made_by, str):
        if inside:
            yield made_by
    elif isinstance(made_by, Mapping):
        for key, value in made_by.items():
            yield from _texts(value, inside or "prompts" in str(key))
    elif isinstance(made_by, Sequence):
        for value in made_by:
            yield from _texts(value, inside)
    elif inside and hasattr(made_by, "text"):
        yield str(made_by.text)  # pyright: ignore[reportAttributeAccessIssue]


def refuse_unseen(label: str, recogniser: Judge) -> None:
    """Raise ValueError where the recogniser has no such label: it would call everything safe."""
    if label not in recogniser.labels:
        near = nearest(label, recogniser.labels)
        hint = f"; nearest of its labels: {', '.join(map(repr, near))}" if near else ""
        raise ValueError(
            f"recogniser {recogniser.name!r} has no label {label!r}, so it can never see the concept{hint}; "
            "give another `recogniser=`, or prompts with a label that it knows"
        )
