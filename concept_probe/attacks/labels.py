"""What an answer has to show: the concept, its label, and prompts that ask for something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from concept_probe.types import Concept, Prompt


def label_of(concept: Concept) -> str:
    """The label that pictures of the concept should get: that of its target prompts.

    Raises ValueError where the target prompts have none.
    """
    if all(p.label is None for p in concept.target):
        raise ValueError(
            f"concept {concept.name!r}: no target prompt has a label, so no picture can be said to show it; "
            "give its prompts `label=`, one of the recogniser's labels"
        )
    return concept.label


def decoys(concept: Concept) -> tuple[Prompt, ...]:
    """Unrelated test prompts that ask for something else: whatever shows the concept there is a mistake.

    They have the concept's label; where its answers are words, any of them in a text counts.
    """
    own = tuple(dict.fromkeys(a for p in concept.target for a in p.answers))
    others = relabelled(concept.prompts("unrelated", "test"), label_of(concept))
    return tuple(replace(p, answers=own, distractors=()) for p in others) if own else others


def relabelled(prompts: Sequence[Prompt], label: str) -> tuple[Prompt, ...]:
    """The prompts, with `label` as what a picture for them has to show."""
    return tuple(replace(p, label=label) for p in prompts)
