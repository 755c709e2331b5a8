"""Ablate concept vectors: columns of MLP output matrices, or what cross-attention reads along text directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from concept_probe.erase.deltas import Columns, Delta, LowRank, Shift
from concept_probe.erase.edit import Edit
from concept_probe.erase.parameters import address, dtype_of, find_parameter
from concept_probe.find.rows import NEGATIVE, POSITIVE, concept_rows
from concept_probe.find.vectors import hidden_site
from concept_probe.types import TOKEN_KINDS, Concept, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class AblateVectors:
    """Take concept vectors out of the weights.

    >>> edit = AblateVectors(how="mean")(subject, concept, found)
    """

    name: ClassVar[str] = "ablate_vectors"
    how: Literal["zero", "mean", "reflect"] = "zero"
    """`zero` removes the vector; `mean` removes it and adds its mean contribution on other prompts to the
    bias, so that they see the average of it; `reflect` puts `-factor` times the vector in its place."""
    factor: float = 1.0
    """For `reflect`: how much of the vector is put in with the sign turned."""
    strength: float = 1.0
    """Share of the change that is made; 0 changes nothing."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit:
        """`found`: Subspaces in parameter space, as `find_vectors` gives them. ValueError where there is none."""
        if self.how not in ("zero", "mean", "reflect"):
            raise ValueError(f"ablate_vectors: how is {self.how!r}; it is one of zero, mean, reflect")
        usable = [s for s in found if s.space == "parameter"]
        if not usable:
            raise ValueError(
                f"ablate_vectors needs concept vectors; {len(found)} subspaces were given, none in parameter space. "
                "find_vectors makes them; it returns nothing where no candidate is causal"
            )
        amount = self.strength * (1 + self.factor if self.how == "reflect" else 1.0)
        columns: dict[Site, list[int]] = {}
        deltas: dict[str, Delta] = {}
        for space in usable:
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
        made_by: dict[str, Any] = {
            "method": self.name,
            "options": asdict(self),
            "subject": subject.name,
            "columns": {str(site): sorted(items) for site, items in columns.items()},
            "directions": {str(s.site): s.rank for s in usable if s.site.item is None},
        }
        return Edit(self.name, concept.name, deltas, subject.weight_hash(), made_by)

    def _columns(
        self, subject: Subject, concept: Concept, site: Site, items: list[int], amount: float
    ) -> dict[str, Delta]:
        where = address(site)
        parameter = find_parameter(subject.components, where)
        weight = parameter.detach().to(dtype_of(parameter))
        indices = torch.tensor(items, device=weight.device)
        out: dict[str, Delta] = {where: Columns(indices, -amount * weight[:, indices], weight.shape[1])}
        if self.how == "mean":
            bias = address(site, "bias")
            find_parameter(subject.components, bias)
            hidden = hidden_site(subject, site)
            sources = (*POSITIVE[:1], *NEGATIVE)
            rows = concept_rows(subject, concept, [hidden], "fit", kinds=TOKEN_KINDS, sources=sources)[hidden]
            mean = rows.x[~rows.concept].mean(0).to(weight)[indices]
            out[bias] = Shift(amount * (weight[:, indices] @ mean))
        return out

    def _direction(self, subject: Subject, space: Subspace, amount: float) -> tuple[str, Delta]:
        if self.how == "mean":
            raise ValueError(
                f"ablate_vectors: how='mean' is for columns; {space.site} has directions on its input side, "
                "use how='zero' or 'reflect'"
            )
        where = address(space.site)
        parameter = find_parameter(subject.components, where)
        weight = parameter.detach().to(dtype_of(parameter))
        if weight.shape[1] != space.basis.shape[0]:
            raise ValueError(f"{where!r} reads width {weight.shape[1]}, the subspace has {space.basis.shape[0]}")
        dual = space.basis if space.dual is None else space.dual
        return where, LowRank(-amount * (weight @ space.basis.to(weight)), dual.to(weight).clone())
