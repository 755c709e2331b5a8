"""Several concepts as one, for an eraser that is to take them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any

import torch
from torch import Tensor

from concept_probe.types import FORGET_KINDS, KINDS, SPLITS, Concept, Kind, Prompt, Split, Splits


def united(concepts: Sequence[Concept]) -> Concept:
    """One concept whose prompts are those of all, in turn, so that whoever takes the first few takes some of each.

    A neighbour, or an unrelated prompt, of one that shows what another is about is left out: it is not to be kept. The
    concepts themselves are its `parts`. One concept alone stays as it is.

    >>> united([cp.concept("camel"), cp.concept("rocket")]).name
    'camel+rocket'

    Raises ValueError for no concept, for two of one name, and for example pictures of two sizes.
    """
    concepts = [part for concept in concepts for part in (concept.parts or (concept,))]
    names = [concept.name for concept in concepts]
    if not names:
        raise ValueError("no concept was given to erase; give one or more")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two of {len(names)} concepts are called {twice!r}; give each once, by a name of its own")
    if len(concepts) == 1:
        return concepts[0]
    kinds: dict[str, Any] = {kind: Splits(*(_prompts(concepts, kind, split) for split in SPLITS)) for kind in KINDS}
    return Concept(name="+".join(names), examples=_examples(concepts), parts=tuple(concepts), **kinds)


def _prompts(concepts: Sequence[Concept], kind: Kind, split: Split) -> tuple[Prompt, ...]:
    every = _in_turn([concept.prompts(kind, split) for concept in concepts])
    if kind in FORGET_KINDS or kind == "anchor":
        return every
    gone = {concept.label for concept in concepts}
    own = {p.text for concept in concepts for of in FORGET_KINDS for p in concept.prompts(of, split)}
    return tuple(p for p in every if p.label not in gone and p.text not in own)


def _in_turn(lists: Iterable[Sequence[Prompt]]) -> tuple[Prompt, ...]:
    """The first of each, the second of each, and so on; each prompt once."""
    return tuple(dict.fromkeys(p for p in chain.from_iterable(zip_longest(*lists)) if p is not None))


def _examples(concepts: Sequence[Concept]) -> Tensor | None:
    """Pictures of all, where all have some."""
    pictures = [concept.examples for concept in concepts if concept.examples is not None]
    if len(pictures) < len(concepts):
        return None
    sizes = {concept.name: tuple(x.shape[2:]) for concept, x in zip(concepts, pictures, strict=True)}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"example pictures differ in size ({sizes}); bring them to one size to erase the concepts together"
        )
    return torch.cat([x.to(pictures[0]) for x in pictures])
