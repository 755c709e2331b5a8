"""A sparse autoencoder over one site: sparse codes of its rows, and the rows back from the codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_probe.types import Codes, Site


def weighted_rows(values: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """Sum of `rows` (f, d) picked by `indices` (..., k) and weighted by `values` (..., k) -> (..., d).

    Equal to `Codes(values, indices).dense(f) @ rows`, at the cost of k rows instead of f.
    """
    k, d = values.shape[-1], rows.shape[1]
    flat = F.embedding_bag(indices.reshape(-1, k), rows, per_sample_weights=values.reshape(-1, k), mode="sum")
    return flat.reshape(*values.shape[:-1], d)


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


class Sae(nn.Module):
    """A sparse autoencoder of f features over a site of width d.

    codes = activation((scale x - b_dec) W_enc + b_enc);  x̂ = (codes W_dec + b_dec) / scale

    >>> codes = sae.encode(x)                 # x (..., d) -> values, indices (..., k)
    >>> error = x - sae.decode(codes)         # x̂ + error gives x back

    Rows are converted to the dtype of the weights; `forward` returns the dtype of its input.
    Weights do not ask for gradients, but gradients flow through to x.
    """

    def __init__(
        self,
        site: Site,
        activation: Activation,
        *,
        W_enc: Tensor,
        b_enc: Tensor,
        W_dec: Tensor,
        b_dec: Tensor,
        scale: float = 1.0,
        made_by: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        d, f = W_enc.shape
        for name, tensor, shape in (("b_enc", b_enc, (f,)), ("W_dec", W_dec, (f, d)), ("b_dec", b_dec, (d,))):
            if tuple(tensor.shape) != shape:
                raise ValueError(f"sae over {site}: {name} is {tuple(tensor.shape)}, W_enc {(d, f)} asks for {shape}")
        if isinstance(activation, TopK) and activation.k > f:
            raise ValueError(f"sae over {site}: k is {activation.k}, more than its {f} features")
        if not scale > 0:
            raise ValueError(f"sae over {site}: scale is {scale}; it must be positive")
        self.site = site
        self.activation = activation
        self.width = f
        self.scale = scale
        """Rows are multiplied by it before they are encoded; `train_sae` makes it a power of two, which is exact."""
        self.made_by = dict(made_by or {})
        """Provenance, fit for JSON: settings of the training run, subject and its weight hash."""
        self.W_enc = nn.Parameter(W_enc, requires_grad=False)
        self.b_enc = nn.Parameter(b_enc, requires_grad=False)
        self.W_dec = nn.Parameter(W_dec, requires_grad=False)
        self.b_dec = nn.Parameter(b_dec, requires_grad=False)

    @property
    def d(self) -> int:
        """Width of the site."""
        return self.W_enc.shape[0]

    @property
    def k(self) -> int | None:
        """Features that fire per row; None where it varies (ReLU, JumpReLU)."""
        return self.activation.k if isinstance(self.activation, TopK) else None

    @property
    def decoder(self) -> Tensor:
        """(f, d): row j is what feature j writes per unit of its value, in the units of the activations."""
        return self.W_dec / self.scale

    @property
    def bias(self) -> Tensor:
        """(d,): what is written when nothing fires, in the units of the activations."""
        return self.b_dec / self.scale

    def pre_activations(self, x: Tensor) -> Tensor:
        """x (..., d) -> (..., f). ValueError where the last axis is not d."""
        if x.shape[-1] != self.d:
            raise ValueError(f"sae over {self.site} has width {self.d}; rows of width {x.shape[-1]} were given")
        return (x.to(self.W_enc.dtype) * self.scale - self.b_dec) @ self.W_enc + self.b_enc

    def encode(self, x: Tensor) -> Codes:
        """x (..., d) -> codes (..., k). ValueError where the last axis is not d."""
        return self.activation(self.pre_activations(x))

    def decode(self, codes: Codes) -> Tensor:
        """codes (..., k) -> x̂ (..., d), in the dtype of the weights."""
        values = codes.values.to(self.W_dec.dtype)
        return (weighted_rows(values, codes.indices, self.W_dec) + self.b_dec) / self.scale

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d) -> x̂ (..., d), in the dtype of x."""
        return self.decode(self.encode(x)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.site}, d={self.d}, f={self.width}, scale={self.scale:g}"
