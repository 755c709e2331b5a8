"""Which prompts an autoencoder was trained on, so that it is not judged on the same ones."""

from __future__ import annotations

from collections.abc import Iterable

from concept_probe.storage import text_sha256
from concept_probe.types import Prompt, Query

MARK_DIGITS = 12
FIRST_TOKEN = "first_token"
"""Key of `made_by` of a dictionary that was learned without the first position of every text."""


def prompt_text(prompt: Prompt | Query | str) -> str:
    if isinstance(prompt, str):
        return prompt
    return prompt.prompt.text if isinstance(prompt, Query) else prompt.text


def mark(text: str) -> str:
    """48 bits of the text's sha256, in hexadecimal."""
    return text_sha256(text)[:MARK_DIGITS]


def prompt_marks(prompts: Iterable[Prompt | Query | str]) -> str:
    """The marks of the distinct texts, sorted and joined: small enough for a JSON file."""
    return "".join(sorted({mark(prompt_text(prompt)) for prompt in prompts}))


def source_provenance(source: object) -> dict[str, str]:
    """What a store says about itself: its subject, the subject's weight hash, and marks of its prompts."""
    known = {name: str(getattr(source, name)) for name in ("subject", "weight_hash") if hasattr(source, name)}
    known |= {FIRST_TOKEN: "left out"} if _skips_first(source) else {}
    return {**known, "prompts": prompt_marks(getattr(source, "prompts", ()))}


def _skips_first(source: object) -> bool:
    """Whether training leaves out the first position of every text of this source."""
    chosen = getattr(source, "learnable", None)
    return bool(getattr(source, "skips_first", False) or (callable(chosen) and chosen() is not source))


def seen_texts(marks: object, prompts: Iterable[Prompt | Query | str]) -> list[str]:
    """The texts of `prompts` whose mark is among `marks`."""
    known = marks if isinstance(marks, str) else ""
    table = {known[i : i + MARK_DIGITS] for i in range(0, len(known), MARK_DIGITS)}
    return sorted({text for prompt in prompts if mark(text := prompt_text(prompt)) in table})
