"""Which features fire, and how strongly, given their pre-activations."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from concept_probe.types import Codes


class Activation(nn.Module, ABC):
    """Which features fire, and how strongly, given their pre-activations (..., f)."""

    architecture: str
    """Its name in sae-lens's cfg.json."""

    @abstractmethod
    def forward(self, pre: Tensor) -> Codes: ...


class TopK(Activation):
    """The k largest pre-activations of a row fire, unless they are negative (arXiv 2406.04093, section 2.3)."""

    architecture = "topk"

    def __init__(self, k: int) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k is {k}; at least one feature must be allowed to fire")
        self.k = k

    def forward(self, pre: Tensor) -> Codes:
        values, indices = pre.topk(self.k, dim=-1)
        return Codes(values.relu(), indices)


class BatchTopK(Activation):
    """Trained to let k features fire per row on average; a row alone is coded by the threshold that was learned.

    arXiv 2412.06410, section 3: the threshold is the mean, over training, of the smallest value that fired in a
    batch, so that a row's codes do not depend on what else is in its batch. With decoder
    rows brought to norm 1 it is multiplied by their norms, like the codes. Written as sae-lens's JumpReLU.
    """

    architecture = "jumprelu"

    def __init__(self, k: int, threshold: Tensor) -> None:
        super().__init__()
        self.k = k
        """Features that fired per row in training, on average."""
        self.threshold = nn.Parameter(threshold, requires_grad=False)
        """(f,), or () for one that all features share"""

    def forward(self, pre: Tensor) -> Codes:
        return _firing(pre, (pre > self.threshold) & (pre > 0))


class Relu(Activation):
    """Every feature with a positive pre-activation fires: published L1-trained autoencoders."""

    architecture = "standard"

    def forward(self, pre: Tensor) -> Codes:
        return _firing(pre, pre > 0)


class JumpRelu(Activation):
    """A feature fires where its pre-activation exceeds its own threshold (f,) and 0 (arXiv 2407.14435, eq. 4)."""

    architecture = "jumprelu"

    def __init__(self, threshold: Tensor) -> None:
        super().__init__()
        self.threshold = nn.Parameter(threshold, requires_grad=False)

    def forward(self, pre: Tensor) -> Codes:
        return _firing(pre, (pre > self.threshold) & (pre > 0))


def _firing(pre: Tensor, fires: Tensor) -> Codes:
    """Codes as wide as the busiest row; shorter rows are padded with value 0."""
    busiest = max(1, int(fires.sum(-1).max())) if fires.numel() else 1
    values, indices = torch.where(fires, pre, 0).topk(busiest, dim=-1)
    return Codes(values, indices)
