"""Products brought to a lower rank, with what that loses."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import torch

from concept_probe.erasers.erasure.lora_factors import Factors


def lowered(factors: Mapping[str, Mapping[str, Factors]], rank: int | None) -> dict[str, dict[str, Factors]]:
    """The nearest products of at most `rank`, by singular values; None: as they are. A warning says the share that is lost."""
    if rank is None:
        return {component: dict(matrices) for component, matrices in factors.items()}
    out: dict[str, dict[str, Factors]] = {}
    lost = total = 0.0
    for component, matrices in factors.items():
        out[component] = {}
        for path, pair in matrices.items():
            out[component][path], values = _cut(pair, rank)
            lost, total = lost + float(values[rank:].square().sum()), total + float(values.square().sum())
    share = math.sqrt(lost / total) if total else 0.0
    if share > 1e-6:
        warnings.warn(
            f"cut to rank {rank}, {share:.2%} of the edit by norm is lost; with the file the model is not quite the edited one",
            stacklevel=5,
        )
    return out


def _cut(pair: Factors, rank: int) -> tuple[Factors, torch.Tensor]:
    """The product at a rank, and its singular values."""
    a, b = pair
    right, of_right = torch.linalg.qr(a.flatten(1).double().mT)
    left, of_left = torch.linalg.qr(b.flatten(1).double())
    u, values, v = torch.linalg.svd(of_left @ of_right.mT, full_matrices=False)
    if len(a) <= rank:
        return pair, values
    kept = len(values[:rank])
    root = values[:kept].sqrt()
    down, up = root[:, None] * (v[:kept] @ right.mT), (left @ u[:, :kept]) * root
    return (down.to(a.dtype).reshape(kept, *a.shape[1:]), up.to(b.dtype).reshape(len(b), kept, *b.shape[2:])), values
