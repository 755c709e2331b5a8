"""The pieces of a prompt as its encoder reads them, in letters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from concept_probe.types import EOS, PAD, Prompt

if TYPE_CHECKING:
    from concept_probe.families import Subject

END_MARK, PADS_MARK = "⟨end⟩", "⟨pads⟩"
MARKS = {"</w>": " ", "Ġ": " ", "▁": " "}
"""How tokenizers write the edge of a word."""


def pieces(subject: Subject, component: str, prompt: Prompt, values: Sequence[float]) -> tuple[tuple[str, float], ...]:
    """Each piece of `prompt` that `component` reads, with its value; `values` are by position, NaN where there is none.

    Positions without a value are left out, and the padding is one piece with its largest value.
    """
    tokens = subject.tokenise([prompt])
    encoders = list(_tokenizers(subject))
    which = encoders.index(component) if component in encoders else 0
    ids, kinds = tokens.ids[which][0].tolist(), tokens.kinds_of[which][0].tolist()
    tokenizer = _tokenizers(subject).get(component)
    out, pads = [], []
    for token, kind, value in zip(ids, kinds, values, strict=False):
        if math.isnan(value):
            continue
        if kind == PAD:
            pads.append(value)
        else:
            out.append((END_MARK if kind == EOS else _letters(tokenizer, token), value))
    return (*out, (PADS_MARK, max(pads))) if pads else tuple(out)


def _tokenizers(subject: Subject) -> dict[str, Any]:
    """By text encoder; empty for a subject that does not tell."""
    return dict(getattr(getattr(subject, "text", None), "tokenizers", {}))


def _letters(tokenizer: Any, token: int) -> str:
    if tokenizer is None:
        return f"[{token}]"
    text = tokenizer.convert_ids_to_tokens(token)
    for mark, letter in MARKS.items():
        text = text.replace(mark, letter)
    return text
