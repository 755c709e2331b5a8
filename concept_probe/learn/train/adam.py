"""Adam over the weights of a dictionary, in one walk: clipped, stepped and brought back to norm 1 part by part."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.adam import adam

from concept_probe.learn.kernels.parts import in_parts, part_size
from concept_probe.learn.train.parallel import Team
from concept_probe.learn.train.weights import DictionaryWeights

BETAS = (0.9, 0.999)
EPS = 6.25e-10
CLIP = 1.0
"""Largest norm of the gradient of all weights together."""


class Adam:
    """arXiv 1412.6980, with the gradient of all weights together clipped to norm `CLIP`.

    Weights, gradients and moments are the largest things that a step reads, so each is read as seldom as may be: once
    for the norm, and once for everything else.
    """

    def __init__(self, weights: DictionaryWeights, team: Team) -> None:
        self.weights, self.team = weights, team
        self.first = {name: torch.zeros_like(p) for name, p in weights.parameters().items()}
        """Running means of the gradients."""
        self.second = {name: torch.zeros_like(p) for name, p in weights.parameters().items()}
        """And of their squares."""
        self.steps = weights.b_dec.new_zeros((), dtype=torch.float32)
        """() how many were made"""

    @torch.no_grad()
    def step(self, rate: float, held: bool) -> None:
        """One step. `held`: decoder rows, of norm 1 before, have it again after; no part of the step is along them."""
        w = self.weights
        f, width = w.decoder.shape[0], w.encoder.shape[1] + w.decoder.shape[1]
        size = part_size(f, width)
        names = [name for name in w.parameters() if name != "b_dec"]

        def square(part: slice) -> Tensor:
            if held:
                remove_radial(w.decoder, part)
            norms = torch._foreach_norm([self._gradient(name)[part] for name in names])
            return torch.stack(list(norms)).square().sum()

        def descend(part: slice) -> None:
            self._adam(names, part, rate, beyond)
            if held:
                normalise_rows(w.decoder[part])

        squares = torch.stack(in_parts(f, size, square, w.decoder.device)).sum()
        bias = torch.linalg.vector_norm(self._gradient("b_dec")).square()
        norm = (self.team.sum_features(squares) + bias).sqrt()
        beyond = (norm / CLIP).clamp_min(1.0)
        in_parts(f, size, descend, w.decoder.device)
        self._adam(["b_dec"], slice(None), rate, beyond)
        self.steps += 1

    def _adam(self, names: list[str], part: slice, rate: float, beyond: Tensor) -> None:
        """Step some of the weights; their gradients are divided by `beyond` ()."""
        parameters = self.weights.parameters()
        adam(
            [parameters[name][part] for name in names],
            [self._gradient(name)[part] for name in names],
            [self.first[name][part] for name in names],
            [self.second[name][part] for name in names],
            [],
            [self.steps.clone() for _ in names],
            fused=True,
            grad_scale=beyond.float(),
            found_inf=torch.zeros_like(self.steps),
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=rate,
            weight_decay=0.0,
            eps=EPS,
            maximize=False,
        )

    def _gradient(self, name: str) -> Tensor:
        gradient = self.weights.parameters()[name].grad
        assert gradient is not None, name
        return gradient

    @torch.no_grad()
    def fold(self, name: str, factor: Tensor) -> None:
        """Let the moments follow a weight that was multiplied by `factor`."""
        self.first[name].div_(factor)
        self.second[name].div_(factor.square())


def remove_radial(decoder: Tensor, part: slice = slice(None)) -> None:
    """Take out of the gradient of a decoder (f, d) its component along each unit-norm row, which renormalising would undo."""
    if decoder.grad is not None:
        rows, gradient = decoder.detach()[part], decoder.grad[part]
        gradient.addcmul_(torch.einsum("fd,fd->f", gradient, rows)[:, None], rows, value=-1)


def norms_or_one(rows: Tensor) -> Tensor:
    """(f,) norms of rows (f, d); 1 for a row of zeros, which no factor changes."""
    norms = torch.linalg.vector_norm(rows, dim=1)
    return torch.where(norms > 0, norms, 1.0)


@torch.no_grad()
def normalise_rows(rows: Tensor) -> None:
    """Scale each of `rows` (f, d) to norm 1, in place."""
    rows /= norms_or_one(rows)[:, None]
