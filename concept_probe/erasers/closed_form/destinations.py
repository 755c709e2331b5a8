"""Which prompt stands in for each of a concept's prompts."""

from __future__ import annotations

from collections.abc import Sequence

from concept_probe.types import Concept, Prompt


def destinations_of(moved: Sequence[Prompt], concept: Concept, guide: str | None, method: str) -> list[Prompt]:
    """The prompts that moved prompts may be led to: the concept's anchors, or `guide` in place of each subject.

    Raises ValueError where there is neither.
    """
    if guide is None:
        guides = concept.prompts("anchor", "fit")
        if not guides:
            raise ValueError(f"{method}: concept {concept.name!r} has no anchor prompts (fit split); give a `guide`")
        return list(guides)
    words = guide.strip()
    out = []
    for prompt in moved:
        text = prompt.text.replace(prompt.subject, words) if prompt.subject else words
        out.append(Prompt(" ".join(text.split()), words if words and words in text else None))
    return out


def nearest_destinations(moved: Sequence[Prompt], guides: Sequence[Prompt]) -> dict[Prompt, Prompt]:
    """Each prompt, with the guide that shares most words with it outside its subject."""
    rests = [p.text.replace(p.subject, " ") if p.subject else p.text for p in moved]
    return {p: guides[nearest_destination(set(t.lower().split()), guides)] for p, t in zip(moved, rests, strict=True)}


def prompts_by_destination(moved: Sequence[Prompt], guides: Sequence[Prompt]) -> dict[Prompt, list[Prompt]]:
    """Each guide that is nearest to some prompts, with those prompts."""
    own, out = nearest_destinations(moved, guides), {}
    for prompt in moved:
        out.setdefault(own[prompt], []).append(prompt)
    return out


def nearest_destination(words: set[str], guides: Sequence[Prompt]) -> int:
    """The guide that shares most words; the first of equals."""
    return max(range(len(guides)), key=lambda i: (len(words & set(guides[i].text.lower().split())), -i))
