"""What a concept is called, where a guard needs a text for it."""

from __future__ import annotations

from concept_probe.types import Concept


def text_naming(concept: Concept, text: str | None, method: str) -> str:
    """The text that names a concept: `text`, or the names that its target prompts (fit split) use, joined by commas.

    Raises ValueError where no target prompt says its name.
    """
    if text is not None:
        return text
    names = dict.fromkeys(prompt.subject for prompt in concept.target.fit if prompt.subject)
    if not names:
        raise ValueError(f"{method}: concept {concept.name!r} has no target prompt with its name; give `text`")
    return ", ".join(names)
