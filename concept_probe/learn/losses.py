"""What training minimises, and where it starts (arXiv 2406.04093, sections 2.3-2.4, appendix A)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.learn.sae import Sae, weighted_rows
from concept_probe.types import Codes

AUXK_WEIGHT = 1 / 32


@dataclass(frozen=True)
class Loss:
    """The parts of one batch's loss: scalars, differentiable."""

    fvu: Tensor
    """Fraction of variance unexplained: |x - x̂|² over |x - mean of the batch|²."""
    auxk: Tensor
    """|e - ê|² over the same denominator; e = x - x̂ is a constant, ê is written by dead features alone."""
    codes: Codes

    @property
    def total(self) -> Tensor:
        return self.fvu + AUXK_WEIGHT * self.auxk


def sae_loss(sae: Sae, x: Tensor, dead: Tensor, auxk: int) -> Loss:
    """Loss of rows x (n, d); `dead` (f,) bool says which features have long not fired.

    The target is x itself: b_dec is subtracted before encoding and added once after decoding.
    """
    target = x.to(sae.W_enc.dtype) * sae.scale
    pre = sae.pre_activations(x)
    codes = sae.activation(pre)
    error = target - (weighted_rows(codes.values, codes.indices, sae.W_dec) + sae.b_dec)
    variance = (target - target.mean(0)).square().sum()
    unexplained = auxk_error(pre, error.detach(), dead, sae.W_dec, auxk)
    return Loss(error.square().sum() / variance, unexplained / variance, codes)


def auxk_error(pre: Tensor, error: Tensor, dead: Tensor, W_dec: Tensor, auxk: int) -> Tensor:
    """Σ|e - ê|² with ê the sum of the `auxk` dead features of largest pre-activation; 0 where none is dead.

    No ReLU on them: a dead feature's pre-activation is often negative, and no gradient would then
    reach the encoder, which is what has to move for the feature to fire again.
    """
    count = min(auxk, int(dead.sum()))
    if count == 0:
        return pre.new_zeros(())
    values, indices = pre.masked_fill(~dead, -torch.inf).topk(count, dim=-1)
    return (error - weighted_rows(values, indices, W_dec)).square().sum()


@torch.no_grad()
def geometric_median(x: Tensor, *, iterations: int = 200, tolerance: float = 1e-8) -> Tensor:
    """The point (d,) with the least summed distance to rows x (n, d), by Weiszfeld's iteration in float64."""
    rows = x.double()
    point = rows.mean(0)
    typical = torch.linalg.vector_norm(rows - point, dim=1).mean()
    smallest = (torch.finfo(torch.float32).eps * typical).clamp_min(torch.finfo(torch.float32).tiny)
    for _ in range(iterations):
        weights = 1 / torch.linalg.vector_norm(rows - point, dim=1).clamp_min(smallest)
        moved = (weights / weights.sum()) @ rows
        done = torch.linalg.vector_norm(moved - point) <= tolerance * torch.linalg.vector_norm(point)
        point = moved
        if done:
            break
    return point.to(x.dtype)


@torch.no_grad()
def remove_radial(W_dec: Tensor) -> None:
    """Take out of W_dec.grad (f, d) its component along each unit-norm row, which renormalising would undo."""
    if W_dec.grad is not None:
        W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec


@torch.no_grad()
def normalise_rows(W_dec: Tensor) -> None:
    """Scale each row of W_dec (f, d) to norm 1, in place."""
    W_dec /= torch.linalg.vector_norm(W_dec, dim=1, keepdim=True)
