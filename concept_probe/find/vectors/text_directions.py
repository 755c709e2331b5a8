"""Directions of a concept in the text states that cross-attention reads, and the subject without some of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.families.text.kinds import kind_numbers
from concept_probe.find.directions.oblique import fit_oblique
from concept_probe.find.directions.projection import DIRECTION_KINDS, Projection
from concept_probe.find.removals import Zero
from concept_probe.find.removals.acting import without
from concept_probe.find.removals.readers import DirectionReader
from concept_probe.find.rows import gather_prompts
from concept_probe.types import BOS, FORGET_KINDS, KINDS, OTHER_KINDS, Concept, Kind, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class TextDirections:
    """Directions in the text states that cross-attention reads, strongest first."""

    basis: Tensor
    """(d, m) float64: the concept's mean state minus the others', per list of prompts and kind of token"""
    others: Tensor
    """(n, d) float64: states of the other prompts, which a removal should leave alone"""
    names: tuple[str, ...]
    """What each column is: `target/subject`, `implicit/eos`, ..."""

    def removal(self, count: int) -> Projection:
        """The projection x - D Eᵀ x for the `count` strongest directions; see `find.directions.oblique.fit_oblique`."""
        return fit_oblique(self.basis[:, :count], self.others)


def text_directions(
    subject: Subject,
    concept: Concept,
    *,
    kinds: Sequence[str] = DIRECTION_KINDS,
    own: Sequence[Kind] = FORGET_KINDS,
    against: Sequence[Kind] = OTHER_KINDS,
) -> TextDirections:
    """Concept directions in `subject.encode(...).states`, in which both encoders of a pair are concatenated.

    Each next direction is the one that adds most to those before (pivoted Gram-Schmidt), and one
    that adds less than 5 % of its length is left out: a removal of nearly parallel directions would
    have to divide by nearly nothing.
    """
    chosen = gather_prompts(concept, "fit", (*own, *against))
    prompts = [prompt for _, prompt in chosen]
    with torch.no_grad():
        read = subject.encode(prompts)
    states, token_kinds = read.states.double(), read.kinds
    owned = torch.tensor([KINDS.index(source) if source in own else -1 for source, _ in chosen], device=states.device)
    named = token_kinds != BOS
    columns, names = [], []
    for source in own:
        for kind, number in zip(kinds, kind_numbers(kinds), strict=True):
            here = token_kinds == number
            mine, rest = here & (owned == KINDS.index(source))[:, None], here & (owned < 0)[:, None]
            if mine.any() and rest.any():
                columns.append(states[mine].mean(0) - states[rest].mean(0))
                names.append(f"{source}/{kind}")
    if not columns:
        asked = ", ".join(kinds)
        raise ValueError(f"concept {concept.name!r}: no token among {asked} has both sides on the fit split")
    order = _pivots(torch.stack(columns, 1))
    basis = torch.stack([columns[i] for i in order], 1)
    return TextDirections(basis, states[named & (owned < 0)[:, None]], tuple(names[i] for i in order))


def _pivots(x: Tensor, *, share: float = 0.05) -> list[int]:
    """Columns of x (d, m) by what each adds to the span of those before."""
    left, lengths, order = x.clone(), torch.linalg.vector_norm(x, dim=0), []
    while len(order) < x.shape[1]:
        rest = torch.linalg.vector_norm(left, dim=0)
        rest[order] = -1
        best = int(rest.argmax())
        if rest[best] <= share * lengths[best] or rest[best] <= 0:
            break
        order.append(best)
        axis = left[:, best] / rest[best]
        left = left - axis[:, None] * (axis @ left)
    return order


def project_texts(subject: Subject, removal: Projection, sites: Sequence[Site]) -> AbstractContextManager[object]:
    """Context manager: the matrices at weight `sites` read removal(x) instead of x, as if W were W (1 - D Eᵀ)."""

    readers = [
        DirectionReader(Site(s.component, s.path, "in"), removal.basis, removal.dual, (0,) * removal.basis.shape[1])
        for s in sites
    ]
    return without(subject, readers, Zero(), torch.zeros(1))
