"""The closed form of associative memories: a matrix that answers some keys with other values, and the rest as before."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.erasers.erasure.deltas import LowRank


def weight_of_solve(lam: float, keys: Float[Tensor, "n h"], *, of_sum: bool) -> float:
    """λ of `solve_key_values`, which is against means over keys; with `of_sum` it was meant against their sum."""
    return lam / max(len(keys), 1) if of_sum else lam


def solve_key_values(
    keys: Float[Tensor, "n h"], wanted: Float[Tensor, "n d"], retained: Float[Tensor, "m h"], lam: float
) -> LowRank:
    """ΔW = R Kᵀ (λ E[p pᵀ] + E[k kᵀ])⁻¹ / n: the least E|ΔW k - r|² + λ E|ΔW p|² over keys k, retained keys p.

    A ridge of 1e-6 of the mean diagonal stands in for keys that neither list has. float64.
    """
    k, r, p = keys.double(), wanted.double(), retained.double()
    moment = k.mT @ k / len(k) + lam * p.mT @ p / max(len(p), 1)
    moment.diagonal().add_(1e-6 * moment.diagonal().mean())
    solved = torch.cholesky_solve(k.mT, torch.linalg.cholesky(moment)) / len(k)
    if len(k) <= r.shape[1]:
        return LowRank(r.mT.contiguous(), solved)
    eye = torch.eye(r.shape[1], dtype=r.dtype, device=r.device)
    return LowRank(eye, solved @ r)
