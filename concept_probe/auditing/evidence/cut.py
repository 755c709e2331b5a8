"""How a concept vector lies in a weight, whichever side it is on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.types import Site, Subspace


@dataclass(frozen=True, eq=False)
class Cut:
    """How a subspace cuts a weight (d_out, d_in): its part is W D Eᵀ where D is made of inputs, else E Dᵀ W."""

    basis: Float[Tensor, "d k"]
    dual: Float[Tensor, "d k"]
    inputs: bool

    def vectors(self, weight: Tensor) -> Float[Tensor, "d k"]:
        """W D, or Wᵀ D: one vector per direction."""
        return weight @ self.basis if self.inputs else weight.mT @ self.basis

    def part(self, weight: Tensor) -> Tensor:
        """The part of a weight that runs along the subspace; it has the shape of the weight."""
        if self.inputs:
            return (weight @ self.basis) @ self.dual.mT
        return self.dual @ (self.basis.mT @ weight)


def cut(weight: Tensor, of: Subspace) -> Cut:
    """A column is an input direction; a basis of width d_in is made of inputs too, one of width d_out of outputs.

    Raises ValueError for a column or a basis that does not fit.
    """
    d_out, d_in = weight.shape
    columns = (of.site.item,) if of.site.item is not None else of.features
    if columns:
        if max(columns) >= d_in:
            raise ValueError(f"{of.site}: column {max(columns)} of a weight of {d_in} columns")
        picked = torch.eye(d_in, dtype=weight.dtype, device=weight.device)[:, list(columns)]
        return Cut(picked, picked, True)
    if of.basis.shape[0] not in (d_in, d_out):
        raise ValueError(f"{of.site}: a basis of width {of.basis.shape[0]} fits no side of a weight {d_out} x {d_in}")
    inputs = of.basis.shape[0] == d_in
    if of.dual is not None:
        return Cut(of.basis.to(weight), of.dual.to(weight), inputs)
    basis = torch.linalg.qr(of.basis.double())[0].to(weight)
    return Cut(basis, basis, inputs)


def whole_weight(site: Site) -> Site:
    """The weight that a column is of."""
    return Site(site.component, site.path, site.side)
