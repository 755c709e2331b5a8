"""Columns of MLP output matrices in an order of merit, and the subject without some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from concept_probe.find.removals import Removal, Zero
from concept_probe.find.removals.acting import without
from concept_probe.find.removals.readers import ColumnReader
from concept_probe.types import Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

Effect = Literal["gradient", "alignment", "norm"]
RankedBy = Effect | Literal["reading", "attribution", "odds"]


@dataclass(frozen=True)
class RankedColumns:
    """Columns of MLP output matrices, best first, and how each was judged."""

    sites: tuple[Site, ...]
    """(m,) weight sites with `item` set to the column"""
    scores: Tensor
    """(m,) how much of the concept's readout the column accounts for"""
    load: Tensor
    """(m,) mean |coefficient| x norm of the column over all prompts: what random columns are matched on"""
    effect: RankedBy
    """How the columns were judged; those beyond `Effect` are of language models, see `find.language.ranking`"""

    def by_layer(self, chosen: Sequence[int]) -> dict[Site, list[int]]:
        """Weight site (without item) -> columns, for chosen places in the ranking."""
        out: dict[Site, list[int]] = {}
        for i in chosen:
            site = self.sites[i]
            out.setdefault(matrix_site(site), []).append(site.item or 0)
        return out

    def matched(self, chosen: Sequence[int], generator: torch.Generator, *, pool: int = 4) -> list[int]:
        """As many other columns of the same layers: for each chosen one, one of the `pool` nearest in load."""
        taken = set(chosen)
        layers = {(self.sites[i].component, self.sites[i].path): list[int]() for i in chosen}
        for j, site in enumerate(self.sites):
            if (site.component, site.path) in layers:
                layers[site.component, site.path].append(j)
        out = []
        for i in chosen:
            free = [j for j in layers[self.sites[i].component, self.sites[i].path] if j not in taken]
            if not free:
                raise ValueError(
                    f"{matrix_site(self.sites[i])} has no columns left to compare with; ask for fewer columns"
                )
            gaps = (self.load[free] - self.load[i]).abs()
            near = gaps.topk(min(pool, len(free)), largest=False).indices
            pick = free[int(near[int(torch.randint(len(near), (1,), generator=generator))])]
            taken.add(pick)
            out.append(pick)
        return out


def matrix_site(site: Site) -> Site:
    """The site of the matrix that a column's site is part of."""
    return Site(site.component, site.path, site.side)


def hidden_site(subject: Subject, weight: Site) -> Site:
    """The site whose values are the coefficients of the columns of MLP output matrix `weight`."""
    wanted = Site(weight.component, weight.path, "in")
    if any(wanted in subject.sites(role) for role in subject.roles()):
        return wanted
    raise ValueError(f"{weight} has no site that feeds it: {wanted} has no role in {subject.name}")


def zero_columns(subject: Subject, columns: Mapping[Site, Sequence[int]]) -> AbstractContextManager[None]:
    """Context manager: the subject as if these columns of its MLP output matrices were zero."""
    return without_columns(subject, columns, Zero())


def without_columns(
    subject: Subject, columns: Mapping[Site, Sequence[int]], removal: Removal
) -> AbstractContextManager[None]:
    """Context manager: the subject with these columns of its MLP output matrices taken out, everywhere.

    RuntimeError for a removal that looks at other rows: nobody looked (`find.attribution` does).
    """
    readers = [
        ColumnReader(hidden_site(subject, site), tuple(items), (0,) * len(items)) for site, items in columns.items()
    ]
    return without(subject, readers, removal, torch.zeros(1))
