"""Ablate concept vectors: columns of MLP output matrices, or what cross-attention reads along text directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from concept_probe.arguments import SeedNumber
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.deltas import Columns, Delta, LowRank, Shift
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import address, dtype_of, find_parameter
from concept_probe.erasers.needs import Needs
from concept_probe.families import Subject
from concept_probe.find.removals import Removal, removal_of
from concept_probe.find.rows import RowQuery, concept_rows
from concept_probe.find.vectors.columns import hidden_site
from concept_probe.types import FORGET_KINDS, OTHER_KINDS, TOKEN_KINDS, Concept, Site, Subspace


@dataclass(frozen=True)
class AblateVectors(Eraser[Subject, Edit]):
    """Take concept vectors out of the weights.

    >>> edit = AblateVectors(how="mean")(subject, concept, found)
    """

    name = "ablate_vectors"
    makes = "edit"
    on = "both"
    needs = Needs(found="vectors")
    aims = "prompts"
    origin = "ours"
    how: Literal["zero", "mean", "reflect", "noise"] = "zero"
    """`zero` removes the vector; `mean` removes it and adds its mean contribution on other prompts to the
    bias, so that they see the average of it; `reflect` puts `-factor` times the vector in its place; `noise` adds a
    random direction of `factor` times its length, and is for columns."""
    factor: float = 1.0
    """For `reflect`: how much of the vector is put in with the sign turned. For `noise`: length of what is added,
    relative to the vector's."""
    strength: float = 1.0
    """Factor on the change; 0 changes nothing, above 1 the vector is turned against the concept, as `reflect` does."""
    seed: SeedNumber = 0
    """For `noise`: what names the random directions."""

    def make(self, subject: Subject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """`found`: Subspaces in parameter space, as `find_vectors` gives them.

        ValueError where one can't be changed as `how` says, or two sets of directions are for one matrix.
        """
        removal = self._removal()
        amount = self.strength * removal.times
        columns: dict[Site, list[int]] = {}
        deltas: dict[str, Delta] = {}
        for space in found:
            if space.site.item is not None:
                items = columns.setdefault(Site(space.site.component, space.site.path, "weight"), [])
                items += [space.site.item] if space.rank and space.site.item not in items else []
            elif space.rank and amount:
                where, delta = self._direction(subject, space, amount)
                if where in deltas:
                    raise ValueError(f"two sets of directions for {where!r}: put them into one Subspace")
                deltas[where] = delta
        if amount:
            for site, items in columns.items():
                if items:
                    deltas |= self._columns(subject, concept, site, sorted(items), amount)
        return self.edit(
            subject,
            concept,
            deltas,
            columns={str(site): sorted(items) for site, items in columns.items()},
            directions={str(s.site): s.rank for s in found if s.site.item is None},
        )

    def _removal(self) -> Removal:
        return removal_of(self.how, factor=self.factor, seed=self.seed)

    def _columns(
        self, subject: Subject, concept: Concept, site: Site, items: list[int], amount: float
    ) -> dict[str, Delta]:
        where = address(site)
        parameter = find_parameter(subject.components, where)
        weight = subject.matrix(site).detach().to(dtype_of(parameter))
        indices = torch.tensor(items, device=weight.device)
        chosen = weight[:, indices]
        removal = self._removal()
        columns = Columns(indices, amount * removal.change(site, chosen), weight.shape[1], subject.orientation(site))
        out: dict[str, Delta] = {where: columns}
        if removal.shifts:
            bias = address(site, "bias")
            if getattr(subject.module(site), "bias", None) is None:
                raise ValueError(
                    f"ablate_vectors: how='mean' puts what the columns add on average into {bias!r}, and that matrix has "
                    "no bias; use how='zero', 'reflect' or 'noise'"
                )
            find_parameter(subject.components, bias)
            hidden = hidden_site(subject, site)
            sources = (*FORGET_KINDS[:1], *OTHER_KINDS)
            # Where a model reads forward, the first position is so long that it would decide the mean.
            kinds = tuple(k for k in TOKEN_KINDS if k != "bos" or not subject.reads_forward)
            rows = concept_rows(subject, concept, [hidden], "fit", RowQuery(kinds, sources))[hidden]
            mean = rows.x[~rows.concept].mean(0).to(weight)[indices]
            out[bias] = Shift(amount * (chosen @ mean))
        return out

    def _direction(self, subject: Subject, space: Subspace, amount: float) -> tuple[str, Delta]:
        if "directions" not in self._removal().on:
            raise ValueError(
                f"ablate_vectors: how={self.how!r} is for columns; {space.site} has directions on its input side, "
                "use how='zero' or 'reflect'"
            )
        where = address(space.site)
        parameter = find_parameter(subject.components, where)
        weight = parameter.detach().to(dtype_of(parameter))
        if weight.shape[1] != space.basis.shape[0]:
            raise ValueError(f"{where!r} reads width {weight.shape[1]}, the subspace has {space.basis.shape[0]}")
        dual = space.basis if space.dual is None else space.dual
        return where, LowRank(-amount * (weight @ space.basis.to(weight)), dual.to(weight).clone())
