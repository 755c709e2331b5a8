"""Where training starts, and what a batch must be (arXiv 2406.04093, appendix A.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from concept_probe.learn.train.weights import DictionaryWeights
from concept_probe.types import Site, unit

_BLOCK = 4096
"""Decoder rows that are drawn together: any part of them can be drawn without the rest."""


def initial_weights(x: Tensor, y: Tensor, features: int, part: slice, seed: int, *, tied: bool) -> DictionaryWeights:
    """Weights for rows x (n, d) that are written as y (n, d'), both in the scale of the weights.

    Unit decoder rows, b_dec the geometric median of y. Where input and output are one site (`tied`) the encoder is
    the decoder's transpose; otherwise its rows are drawn alike, and b_enc makes up for the median of x.
    """
    decoder = unit_rows(features, y.shape[1], part, seed).to(y)
    encoder = decoder.clone() if tied else unit_rows(features, x.shape[1], part, seed + 1).to(x)
    b_enc = x.new_zeros(len(decoder)) if tied else -encoder @ geometric_median(x)
    return DictionaryWeights(encoder, b_enc, decoder, geometric_median(y), tied)


def unit_rows(features: int, d: int, part: slice, seed: int) -> Tensor:
    """Rows `part` of (features, d) unit rows that `seed` names."""
    first, last = part.start // _BLOCK, -(-part.stop // _BLOCK)
    blocks = []
    for block in range(first, last):
        # A generator on the CPU reads the low 32 bits of its seed and no others.
        generator = torch.Generator().manual_seed((seed * 1_000_003 + block) % 2**32)
        blocks.append(torch.randn(min(_BLOCK, features - block * _BLOCK), d, generator=generator))
    rows = torch.cat(blocks)[part.start - first * _BLOCK : part.stop - first * _BLOCK]
    return unit(rows, dim=1)


def power_of_two_scale(x: Tensor, site: Site) -> float:
    """What brings the root mean square of rows x (n, d) about their geometric median near 1.

    A power of two, so that folding it into the weights, as sae-lens's format needs, changes no bit.
    """
    spread = float((x - geometric_median(x)).square().mean().sqrt())
    if not math.isfinite(spread):
        raise FloatingPointError(
            f"sae over {site}: the rows of the first batch are so large (up to {float(x.abs().max()):.1e}) that their squares "
            f"overflow in {x.dtype}; scale them down"
        )
    if spread == 0:
        raise ValueError(
            f"sae over {site}: all {x.shape[0]} rows of the first batch are equal, nothing can be learned"
            + (": a batch of one row always is" if len(x) == 1 else "")
        )
    return 2.0 ** -round(math.log2(spread))


def check_batch(x: Tensor, d: int, step: int, site: Site) -> None:
    """ValueError where x is not (n, d), FloatingPointError where it is not finite; both name the step."""
    if x.dim() != 2 or x.shape[1] != d:
        raise ValueError(f"sae over {site}: step {step} got rows of shape {tuple(x.shape)}, width {d} was expected")
    if not bool(torch.isfinite(x).all()):
        row = int((~torch.isfinite(x)).any(1).nonzero()[0])
        raise FloatingPointError(f"sae over {site}: row {row} of step {step} holds NaN or infinity")


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
