"""Which prompt stands in for each of a concept's prompts."""

from __future__ import annotations

from collections.abc import Sequence

from concept_probe.types import Concept, Prompt


def destinations_of(prompts: Sequence[Prompt], concept: Concept, guide: str | None, method: str) -> list[Prompt]:
    """The prompts that a concept's prompts may be led to: the concept's anchors, or `guide` in place of each subject.

    Raises ValueError where there is neither.
    """
    if guide is None:
        anchors = concept.prompts("anchor", "fit")
        if not anchors:
            raise ValueError(f"{method}: concept {concept.name!r} has no anchor prompts (fit split); give a `guide`")
        return list(anchors)
    words = guide.strip()
    out = []
    for prompt in prompts:
        text = prompt.text.replace(prompt.subject, words) if prompt.subject else words
        out.append(Prompt(" ".join(text.split()), words if words and words in text else None))
    return out


def nearest_destinations(prompts: Sequence[Prompt], destinations: Sequence[Prompt]) -> dict[Prompt, Prompt]:
    """Each prompt, with the destination that shares most words with it outside its subject."""
    rests = [p.text.replace(p.subject, " ") if p.subject else p.text for p in prompts]
    return {
        p: destinations[nearest_destination(set(t.lower().split()), destinations)]
        for p, t in zip(prompts, rests, strict=True)
    }


def prompts_by_destination(prompts: Sequence[Prompt], destinations: Sequence[Prompt]) -> dict[Prompt, list[Prompt]]:
    """Each destination that is nearest to some prompts, with those prompts."""
    own, out = nearest_destinations(prompts, destinations), {}
    for prompt in prompts:
        out.setdefault(own[prompt], []).append(prompt)
    return out


def nearest_destination(words: set[str], destinations: Sequence[Prompt]) -> int:
    """The destination that shares most words; the first of equals."""
    return max(range(len(destinations)), key=lambda i: (len(words & set(destinations[i].text.lower().split())), -i))
