"""Where training starts, and what a batch must be (arXiv 2406.04093, appendix A.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from concept_probe.learn.losses import geometric_median, normalise_rows
from concept_probe.learn.sae import Sae, TopK
from concept_probe.types import Site


def start(first: Tensor, site: Site, k: int, expansion: int, seed: int) -> Sae:
    """Random unit decoder rows, the encoder their transpose, b_dec the geometric median of the first batch.

    The scale brings the rows' root mean square about that median near 1. It is a power of two, so
    that folding it into the weights, as sae-lens's format needs, changes no bit.
    """
    x = first if first.dtype == torch.float64 else first.float()
    d = x.shape[1]
    median = geometric_median(x)
    spread = float((x - median).square().mean().sqrt())
    if spread == 0:
        raise ValueError(f"sae over {site}: all {x.shape[0]} rows of the first batch are equal, nothing can be learned")
    scale = 2.0 ** -round(math.log2(spread))
    W_dec = torch.randn(d * expansion, d, generator=torch.Generator().manual_seed(seed)).to(x)
    normalise_rows(W_dec)
    return Sae(
        site,
        TopK(k),
        W_enc=W_dec.T.contiguous().clone(),
        b_enc=x.new_zeros(d * expansion),
        W_dec=W_dec,
        b_dec=median * scale,
        scale=scale,
    )


def check(x: Tensor, d: int, step: int, site: Site) -> None:
    """ValueError where x is not (n, d), FloatingPointError where it is not finite; both name the step."""
    if x.dim() != 2 or x.shape[1] != d:
        raise ValueError(f"sae over {site}: step {step} got rows of shape {tuple(x.shape)}, width {d} was expected")
    if not bool(torch.isfinite(x).all()):
        row = int((~torch.isfinite(x)).any(1).nonzero()[0])
        raise FloatingPointError(f"sae over {site}: row {row} of step {step} holds NaN or infinity")
