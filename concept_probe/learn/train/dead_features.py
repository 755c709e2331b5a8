"""AuxK: features that have long not fired reconstruct what the others leave over (arXiv 2406.04093, appendix A.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from concept_probe.learn.train.parallel import Team
from concept_probe.learn.train.weights import DictionaryWeights

AUXK_WEIGHT = 1 / 32
_BLOCK = 1 << 22
"""Numbers of a block (rows, dead features) that is held at a time."""


def revive(
    weights: DictionaryWeights, u: Tensor, error: Tensor, dead: Tensor, auxk: int, variance: Tensor, team: Team
) -> float:
    """Add the gradient of AUXK_WEIGHT |e - ê|²/V to the weights and return |e - ê|²/V; 0 where nothing is dead.

    ê is written by the `auxk` dead features of largest pre-activation per row; e (n, d') is a constant. No ReLU on
    them: a dead feature's pre-activation is often negative, and no gradient would then reach the encoder, which is
    what has to move for the feature to fire again. The dead are few, so they meet every row in dense products.
    """
    here = dead.nonzero().flatten()
    counts = torch.zeros(team.size, dtype=torch.long, device=u.device)
    counts[team.rank] = len(here)
    total = int(team.sum_features(counts).sum()) if team.split == "features" else len(here)
    if total == 0:
        return 0.0
    encoder, bias, decoder = weights.encoder[here], weights.b_enc[here], weights.decoder[here]
    gradients = [torch.zeros_like(encoder), torch.zeros_like(bias), torch.zeros_like(decoder)]
    left = u.new_zeros((), dtype=torch.float64 if u.dtype == torch.float64 else torch.float32)
    step = max(64, _BLOCK // total)
    for start in range(0, len(u), step):
        part, e = u[start : start + step], error[start : start + step]
        codes = _largest(torch.addmm(bias, part, encoder.mT), min(auxk, total), total, team)
        residual = team.sum_features(codes @ decoder) - e
        left += residual.square().sum()
        to_written = residual * (2 * AUXK_WEIGHT / variance)
        to_codes = torch.where(codes != 0, to_written @ decoder.mT, 0.0)
        for gradient, more in zip(gradients, (to_codes.mT @ part, to_codes.sum(0), codes.mT @ to_written), strict=True):
            gradient += more
    for parameter, gradient in zip((weights.encoder, weights.b_enc, weights.decoder), gradients, strict=True):
        assert parameter.grad is not None
        parameter.grad[here] += gradient
    return float(team.sum_rows(left) / variance)


def _largest(pre: Tensor, k: int, total: int, team: Team) -> Tensor:
    """`pre` (n, dead here) with all but the k largest per row, over all processes' dead features, at 0."""
    if k == total:
        return pre
    values, indices = pre.topk(min(k, pre.shape[1]), dim=1)
    if team.split == "features" and team.size > 1:
        padded = pre.new_full((len(pre), k), -torch.inf)
        padded[:, : values.shape[1]] = values
        values = torch.where(values >= team.gather_features(padded, 1).topk(k, dim=1).values[:, -1:], values, 0.0)
    return torch.zeros_like(pre).scatter_(1, indices, values)
