"""A measured number, and a subspace with the numbers that speak for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from concept_probe.types.codes import SparseCoder
from concept_probe.types.places import Site

Better = Literal["higher", "lower", "none"]
"""Which way a number should go; `none` where neither is better."""


@dataclass(frozen=True)
class Score:
    """One measured number with its unit, direction, interval and sample size."""

    name: str
    value: float
    low: float
    high: float
    """`low`..`high` is the 95 % interval."""
    n: int
    unit: str = ""
    better: Better = "none"
    control: float | None = None
    """The same measurement where the answer is known (shuffled labels, random directions)."""

    def __str__(self) -> str:
        control = "" if self.control is None else f", control {self.control:.3g}"
        return (
            f"{self.name} {self.value:.3g} [{self.low:.3g}, {self.high:.3g}] (n {self.n}{control}) {self.unit}".rstrip()
        )


@dataclass(frozen=True)
class Subspace:
    """A basis at a site, in activation space or in parameter space, with the evidence for it."""

    site: Site
    basis: Tensor
    """(d, k)"""
    space: Literal["activation", "parameter"]
    score: Score
    """How strongly it belongs to the concept; `score.control` is the same for a matched random direction."""
    concept: str = ""
    role: str = ""
    mean: Tensor | None = None
    """(d,) the point that an affine projection leaves fixed; None for a linear one."""
    dual: Tensor | None = None
    """(d, k) for an oblique projection x - basis (dualᵀ (x - mean)); None where it equals `basis`."""
    features: tuple[int, ...] = ()
    """For features of a sparse autoencoder: their indices, one per column of `basis`."""
    codec: SparseCoder | None = field(default=None, compare=False, repr=False)
    scores: tuple[Score, ...] = ()
    """One per column of `basis`, where each was judged alone."""
    base_hash: str = ""
    """`subject.weight_hash()` of the weights that it was found in; empty where nobody says, as of features, whose
    autoencoder does."""

    @property
    def rank(self) -> int:
        return self.basis.shape[1]


def unit(x: Tensor, dim: int = 0) -> Tensor:
    """`x` scaled to norm 1 along `dim`; zero vectors stay zero."""
    return x / torch.linalg.vector_norm(x, dim=dim, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
