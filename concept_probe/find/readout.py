"""One row per prompt: where a concept can be read off at a site of text tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.families.text.kinds import kind_numbers
from concept_probe.find.layout import has_tokens
from concept_probe.find.rows import ConceptRows, RowQuery, concept_rows
from concept_probe.types import JUDGED_KINDS, Concept, Kind, Site, Split

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class Readout:
    """One row for each of p prompts."""

    x: Tensor
    """(p, d) float32"""
    concept: Tensor
    """(p,) bool: the prompt is one of the concept's."""

    @property
    def n(self) -> int:
        return len(self.x)


def last_rows(rows: ConceptRows, kind: str = "subject") -> Readout:
    """The last row of each prompt whose token is of `kind`, in the order of the prompts.

    With `subject` that is the token at which a causal encoder has read the whole name. Prompts without such
    a token are left out. Raises UnknownName for the kind, ValueError where none of the rows is of it.
    """
    (number,) = kind_numbers([kind])
    here = (rows.kind == number).nonzero()[:, 0]
    if not len(here):
        raise ValueError(f"no row is of token kind {kind!r}")
    prompts, where = rows.prompt[here].unique(return_inverse=True)
    last = torch.zeros(len(prompts), dtype=torch.long).scatter_reduce(0, where, here, "amax", include_self=False)
    return Readout(rows.x[last], rows.concept[last])


def readouts(
    subject: Subject,
    concept: Concept,
    site: Site,
    splits: Sequence[Split] = ("fit", "test"),
    *,
    kind: str = "subject",
    sources: Sequence[Kind] = JUDGED_KINDS,
    limit: int | None = None,
) -> tuple[Readout, ...]:
    """The concept's prompts of each of `splits` as one row each at `site`, beside its neighbours and unrelated ones.

    `limit` bounds the prompts of each list. Raises ValueError for a site whose rows are not text tokens.
    """
    if not has_tokens(subject, site):
        raise ValueError(f"rows of site {str(site)!r} are not text tokens, so no row of a prompt can be singled out")
    which = RowQuery((kind,), sources, limit)
    return tuple(last_rows(concept_rows(subject, concept, [site], split, which)[site], kind) for split in splits)
