"""A sparse autoencoder over one site: sparse codes of its rows, and the rows back from the codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from concept_probe.learn.activation import Activation, BatchTopK, JumpRelu, Relu, TopK
from concept_probe.learn.kernels import weighted_rows
from concept_probe.learn.row_norm import RowNorm, normalised
from concept_probe.registry import check_choice
from concept_probe.types import Codes, RowUnits, Site

__all__ = ["Activation", "BatchTopK", "JumpRelu", "Relu", "Sae", "TopK"]


class Sae(nn.Module):
    """A sparse autoencoder of f features over a site of width d.

    codes = activation((scale n(x) - b_dec) W_enc + b_enc);  x̂ = n⁻¹((codes W_dec + b_dec) / scale)

    n is `row_norm`: the row as it is, unless a published autoencoder normalises each row by its own mean and size.

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
        scale: float | RowNorm = 1.0,
        made_by: Mapping[str, object] | None = None,
    ) -> None:
        """`scale` is what rows are multiplied by before they are encoded: one number, or a rule for each row."""
        super().__init__()
        row_norm: RowNorm = scale if isinstance(scale, str) else "none"
        check_choice(row_norm, RowNorm, "scale")
        scale = 1.0 if isinstance(scale, str) else scale
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
        self.row_norm: RowNorm = row_norm
        """What is done to each row first, and undone to what is written."""
        self.made_by = dict(made_by or {})
        """Provenance, fit for JSON: settings of the training run, subject and its weight hash; of published ones, what
        their configuration says and no weight holds."""
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
        """Features that fire per row; None where it varies (BatchTopK, ReLU, JumpReLU)."""
        return self.activation.k if isinstance(self.activation, TopK) else None

    @property
    def decoder(self) -> Tensor:
        """(f, d): row j is what feature j writes per unit of its value, in the units of the activations.

        With a `row_norm`, in the units of each row: `Codes.in_row_units` leads back.
        """
        return self.W_dec / self.scale

    @property
    def bias(self) -> Tensor:
        """(d,): what is written when nothing fires, in the units of `decoder`."""
        return self.b_dec / self.scale

    def pre_activations(self, x: Tensor) -> Tensor:
        """x (..., d) -> (..., f). ValueError where the last axis is not d."""
        return self._pre_activations(x)[0]

    def _pre_activations(self, x: Tensor) -> tuple[Tensor, RowUnits | None]:
        if x.shape[-1] != self.d:
            raise ValueError(f"sae over {self.site} has width {self.d}; rows of width {x.shape[-1]} were given")
        x, units = normalised(x.to(self.W_enc.dtype), self.row_norm)
        return (x * self.scale - self.b_dec) @ self.W_enc + self.b_enc, units

    def encode(self, x: Tensor) -> Codes:
        """x (..., d) -> codes (..., k). ValueError where the last axis is not d."""
        pre, units = self._pre_activations(x)
        codes = self.activation(pre)
        return codes if units is None else replace(codes, units=units)

    def decode(self, codes: Codes) -> Tensor:
        """codes (..., k) -> x̂ (..., d), in the dtype of the weights.

        ValueError where each row is normalised and the codes don't say the units of their rows.
        """
        k, d = codes.values.shape[-1], self.d
        written = weighted_rows(codes.values.reshape(-1, k), codes.indices.reshape(-1, k), self.W_dec)
        out = (written.reshape(*codes.values.shape[:-1], d) + self.b_dec) / self.scale
        if self.row_norm == "none":
            return out
        if codes.units is None:
            raise ValueError(
                f"sae over {self.site}: row_norm is {self.row_norm!r}, and these codes don't say the units of their "
                "rows; decode what `encode` gave, or dataclasses.replace(codes, values=...) of it"
            )
        out = codes.in_row_units(out)
        return out if codes.units.mean is None else out + codes.units.mean.to(out)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d) -> x̂ (..., d), in the dtype of x."""
        return self.decode(self.encode(x)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.site}, d={self.d}, f={self.width}, scale={self.scale:g}"
