"""The sums over text states that every closed form is made of, and the one solve that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Balance = Literal["sum", "mean"]


@dataclass(frozen=True)
class Moments:
    """Sums of outer products of states (d,), float64. Those of several concepts are added."""

    edited: Float[Tensor, "d d"]
    """Σ c cᵀ over edited tokens."""
    destination: Float[Tensor, "d d"]
    """Σ g cᵀ over edited tokens, each with the token that is its destination."""
    retained: Float[Tensor, "d d"]
    """Σ p pᵀ over retained tokens."""
    count_edited: int
    count_retained: int

    @classmethod
    def of(
        cls, target: Float[Tensor, "n d"], destination: Float[Tensor, "n d"], retained: Float[Tensor, "m d"]
    ) -> Moments:
        """Sums over rows; row i of `target` is led to row i of `destination`."""
        c, g, p = target.double(), destination.double(), retained.double()
        return cls(c.mT @ c, g.mT @ c, p.mT @ p, len(c), len(p))

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.edited + other.edited, self.destination + other.destination, self.retained + other.retained,
            self.count_edited + other.count_edited, self.count_retained + other.count_retained,
        )  # fmt: skip

    def weights(self, alpha: float, beta: float, balance: Balance) -> tuple[float, float]:
        """Weight of each edited and of each retained token.

        `sum` gives `alpha` and `beta` as they are; `mean` divides each by its number of tokens and multiplies by d.
        """
        if balance == "sum":
            return alpha, beta
        d = len(self.edited)
        return alpha * d / max(self.count_edited, 1), beta * d / max(self.count_retained, 1)


@dataclass(frozen=True)
class Solution:
    """K (d, d) with W_new = W + W K for every matrix W that reads the text states, and how well it was solved."""

    change: Tensor
    condition: float
    """Condition number of the matrix that was solved for."""
    residual: float
    """|K M - R| / |R|: what the solve left over."""


def solve(right: Float[Tensor, "d d"], moment: Float[Tensor, "d d"], method: str, mend: str) -> Solution:
    """K with K M = R for a symmetric positive M, by Cholesky in float64; nothing is inverted.

    Raises ValueError where M is singular; `method` and `mend` are what the message says of it.
    """
    factor, failed = torch.linalg.cholesky_ex(moment)
    if int(failed):
        raise ValueError(f"{method}: the moment matrix ({len(moment)} wide) is singular; {mend}")
    change = torch.cholesky_solve(right.mT, factor).mT
    values = torch.linalg.eigvalsh(moment)
    return Solution(change, float(values[-1] / values[0]), left_over(change @ moment, right))


def left_over(found: Tensor, asked: Tensor) -> float:
    """|found - asked| / |asked|."""
    size = torch.linalg.matrix_norm(asked).clamp_min(torch.finfo(asked.dtype).tiny)
    return float(torch.linalg.matrix_norm(found - asked) / size)


def solve_uce(
    sums: Moments, *, lam: float, alpha: float, beta: float, method: str, start: Tensor | None = None
) -> Solution:
    """K = [λK₀ + α Σ(g - c)cᵀ] M⁻¹ with M = λI + αΣccᵀ + βΣppᵀ.

    W + W K minimises αΣ|W' c - W g|² + βΣ|W' p - W p|² + λ|W' - W(I + K₀)|², the same K for every W; K₀ (`start`)
    is 0 unless an earlier edit is to be stayed near. With K₀ = 0 this is UCE (arXiv 2308.14761), which has it
    without λ and with α = β = 1. Raises ValueError where M is singular, in the name of `method`.
    """
    moment = alpha * sums.edited + beta * sums.retained
    moment.diagonal().add_(lam)
    right = alpha * (sums.destination - sums.edited)
    right = right if start is None else right + lam * start
    return solve(right, moment, method, f"lam is {lam}, make it larger")


def factors(change: Float[Tensor, "d d"], most: int) -> tuple[Float[Tensor, "d r"], Float[Tensor, "d r"]]:
    """u, v with u vᵀ = `change`, whose rank is known to be at most `most`; directions that are rounding are dropped.

    A matrix of low rank is its projection onto the span of a few random combinations of its columns, so the
    decomposition is of a small matrix.
    """
    d = len(change)
    if 2 * most < d:
        mix = torch.randn(d, most, generator=torch.Generator().manual_seed(0), dtype=change.dtype).to(change)
        span, _ = torch.linalg.qr(change @ mix)
        u, s, vt = torch.linalg.svd(span.mT @ change, full_matrices=False)
        u = span @ u
    else:
        u, s, vt = torch.linalg.svd(change, full_matrices=False)
    kept = s > s[:1] * d * torch.finfo(torch.float32).eps
    return u[:, kept] * s[kept], vt.mT[:, kept]
