"""What training minimises, written plainly with dense activations: autograd's gradients of it are the truth."""

from __future__ import annotations

import torch
from torch import Tensor

from concept_probe.learn.train.objective import Objective
from concept_probe.learn.train.weights import DictionaryWeights


def codes(weights: DictionaryWeights, x: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Pre-activations and codes, both (n, f)."""
    u = x - weights.b_dec if weights.tied else x
    pre = u @ weights.encoder.mT + weights.b_enc
    if objective.rule == "topk":
        kept = torch.zeros_like(pre).scatter(1, pre.topk(objective.k, dim=1).indices, 1.0)
    else:
        least = pre.flatten().topk(objective.k * len(x)).values[-1]
        kept = (pre >= least).to(pre)
    return pre, pre.relu() * kept


def losses(
    weights: DictionaryWeights, x: Tensor, y: Tensor, objective: Objective, dead: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, FVU of all features, AuxK's part (not weighted), and the codes."""
    pre, z = codes(weights, x, objective)
    variance = (y - y.mean(0)).square().sum()
    f = len(weights.b_enc)
    fvus = []
    for end in objective.prefixes or (f,):
        inside = (torch.arange(f) < end).to(z)
        error = y - ((z * inside) @ weights.decoder + weights.b_dec)
        fvus.append(error.square().sum() / variance)
    auxk = y.new_zeros(())
    count = min(objective.auxk, int(dead.sum()))
    if count:
        chosen = torch.where(dead, pre, -torch.inf).topk(count, dim=1).indices
        picked = torch.zeros_like(pre).scatter(1, chosen, 1.0)
        left = y - (z @ weights.decoder + weights.b_dec)
        auxk = (left.detach() - (pre * picked) @ weights.decoder).square().sum() / variance
    return torch.stack(fvus).mean() + auxk / 32, fvus[-1], auxk, z
