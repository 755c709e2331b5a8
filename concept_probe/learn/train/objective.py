"""One batch's loss and its gradients, worked out by hand for codes of which k of f features fire.

With V = Σ|y - mean y|², prefixes p of the features and e_p = y - x̂_p:

    L = 1/P Σ_p |e_p|²/V  +  1/32 |e - ê|²/V            (FVU, Matryoshka's mean over prefixes, AuxK)

No dense activations are made: sums run over the entries of the codes (`kernels`), and only dead features meet
every row, one block of rows at a time. `tests/learn/dense.py` writes the same loss plainly, and autograd's gradients
of that are what these are tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from concept_probe.learn.kernels import by_feature, row_products, scatter_rows, weighted_rows
from concept_probe.learn.kernels.parts import in_parts, part_size
from concept_probe.learn.train.activation_rules import Fired, Rule, fire
from concept_probe.learn.train.dead_features import revive
from concept_probe.learn.train.parallel import Team
from concept_probe.learn.train.topk_search import CandidateCount, Precision
from concept_probe.learn.train.weights import DictionaryWeights


@dataclass(frozen=True)
class Objective:
    """What is minimised."""

    k: int
    rule: Rule = "topk"
    prefixes: tuple[int, ...] = ()
    """Matryoshka: sizes of growing prefixes of the features, each of which must reconstruct; empty: only all of them."""
    auxk: int = 0
    precision: Precision = "full"
    """How features are picked; values and gradients are in full precision either way."""
    candidates: CandidateCount = field(default_factory=CandidateCount)
    """How many of them a bfloat16 product picks: goes on adapting from batch to batch."""


@dataclass(frozen=True)
class BatchOutcome:
    """One batch's loss and codes."""

    fvu: float
    """Fraction of variance unexplained by all features."""
    auxk: float
    counts: Tensor
    """(f,) rows in which each feature fired"""
    least: Tensor
    """() smallest value that fired."""


@torch.no_grad()
def backward(
    weights: DictionaryWeights, x: Tensor, y: Tensor, objective: Objective, dead: Tensor, team: Team = Team()
) -> BatchOutcome:
    """Set the gradient of every weight for rows x (n, d) to be written as y (n, d'); `dead` (f,) bool may be revived.

    Gradients that are there already lose their memory to the new ones. x and y are in the scale of the weights.
    With several processes, each passes the rows that it sees.
    """
    u = x - weights.b_dec if weights.tied else x
    o = objective
    fired = fire(u, weights.encoder, weights.b_enc, o.k, o.rule, o.precision, o.candidates, team)
    order = by_feature(fired.indices, weights.encoder.shape[0])
    variance = _variance(y, team)
    bands = _bands(fired, objective.prefixes, team.rank * len(weights.b_enc) if team.split == "features" else 0)
    errors = _errors(weights, y, fired, bands, team)
    gradients = _gradients(errors, variance)
    ones = x.new_ones(len(x), 1)

    to_values = torch.zeros_like(fired.values)
    to_decoder = None
    for band, gradient in zip(bands, gradients, strict=True):
        products = row_products(gradient, fired.indices, weights.decoder, order)
        to_values += torch.where(band.keep, products, 0.0) if band.keep is not None else products
        kept = weights.decoder.grad if to_decoder is None else None
        part = scatter_rows(band.of(fired.values), order, gradient, kept)
        to_decoder = part if to_decoder is None else to_decoder.add_(part)
    weights.decoder.grad = to_decoder
    to_values = torch.where(fired.values > 0, to_values, 0.0)
    weights.encoder.grad = scatter_rows(to_values, order, u, weights.encoder.grad)
    weights.b_enc.grad = scatter_rows(to_values, order, ones)[:, 0]
    weights.b_dec.grad = gradients[0].sum(0)

    auxk = revive(weights, u, errors[-1], dead, objective.auxk, variance, team) if objective.auxk else 0.0
    if weights.tied:
        to_bias = weights.b_enc.grad
        weights.b_dec.grad -= team.sum_features(
            _sum(lambda part: to_bias[part] @ weights.encoder[part], weights.encoder)
        )
    for parameter in weights.parameters().values():
        assert parameter.grad is not None
        team.sum_rows(parameter.grad)
    counts = team.sum_rows(scatter_rows((fired.values > 0).to(x.dtype), order, ones)[:, 0])
    fvu = float(team.sum_rows(_squares(errors[-1])) / variance)
    return BatchOutcome(fvu, auxk, counts, fired.least)


def _variance(y: Tensor, team: Team) -> Tensor:
    """Σ|y - mean y|² over all rows of the batch."""
    total = team.sum_rows(y.sum(0))
    count = team.sum_rows(torch.tensor(len(y), device=y.device))
    return team.sum_rows(_squares(y, total / count))


def _squares(y: Tensor, mean: Tensor | float = 0.0) -> Tensor:
    """Σ|y - mean|² over the rows of y (n, d)."""
    return _sum(lambda part: (y[part] - mean).square().sum(), y)


def _sum(work: Callable[[slice], Tensor], rows: Tensor) -> Tensor:
    """What `work` makes of parts of `rows`, added up in an order that no number of threads changes."""
    return torch.stack(in_parts(len(rows), part_size(*rows.shape), work, rows.device)).sum(0)


@dataclass(frozen=True)
class _Band:
    """The entries whose feature is in one prefix and not in the one before."""

    keep: Tensor | None
    """(n, m) bool; None for all"""

    def of(self, values: Tensor) -> Tensor:
        return values if self.keep is None else torch.where(self.keep, values, 0.0)


def _bands(fired: Fired, prefixes: Sequence[int], first: int) -> list[_Band]:
    """One band per prefix; `first` is the number of the first feature that this process holds."""
    if len(prefixes) < 2:
        return [_Band(None)]
    ends = torch.tensor(prefixes, device=fired.indices.device)
    number = torch.bucketize(fired.indices + first, ends, right=True)
    return [_Band(number == i) for i in range(len(prefixes))]


def _errors(weights: DictionaryWeights, y: Tensor, fired: Fired, bands: Sequence[_Band], team: Team) -> list[Tensor]:
    """y - x̂ with the features of each prefix, from the smallest to all."""
    left, errors = y - weights.b_dec, []
    for band in bands:
        left = left - team.sum_features(weighted_rows(band.of(fired.values), fired.indices, weights.decoder))
        errors.append(left)
    return errors


def _gradients(errors: Sequence[Tensor], variance: Tensor) -> list[Tensor]:
    """∂L/∂(what the features of each band write): they are part of their own prefix and of all larger ones."""
    gradients, total = [], None
    for error in reversed(errors):
        gradient = error * (-2 / (len(errors) * variance))
        total = gradient if total is None else total + gradient
        gradients.append(total)
    return gradients[::-1]
