"""A transcoder: codes of one site's rows, from which the rows of another site are written."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from concept_probe.learn.activation import Activation
from concept_probe.learn.kernels import weighted_rows
from concept_probe.types import Codes, Site


class Transcoder(nn.Module):
    """f features that read a site of width d and write another of width d' (arXiv 2406.11944, section 3.1).

    codes = activation(scale x W_enc + b_enc);  ŷ = (codes W_dec + b_dec) / target_scale

    >>> y_hat = transcoder(x)                 # x (..., d) -> (..., d')

    It stands for what computes one site from the other, an MLP say, so b_dec is not subtracted from its input.
    Weights do not ask for gradients, but gradients flow through to x.
    """

    def __init__(
        self,
        sites: tuple[Site, Site],
        activation: Activation,
        *,
        W_enc: Tensor,
        b_enc: Tensor,
        W_dec: Tensor,
        b_dec: Tensor,
        scales: tuple[float, float] = (1.0, 1.0),
        made_by: Mapping[str, object] | None = None,
    ) -> None:
        """`sites` are the one that is read and the one that is written; `scales` belong to them, see `scale`."""
        super().__init__()
        (site, target), (scale, target_scale) = sites, scales
        f = W_enc.shape[1]
        for name, tensor, shape in (("b_enc", b_enc, (f,)), ("W_dec", W_dec, (f, *b_dec.shape))):
            if tuple(tensor.shape) != shape:
                raise ValueError(
                    f"transcoder {site} to {target}: {name} is {tuple(tensor.shape)}, {shape} is asked for"
                )
        for name, factor in (("scale", scale), ("target_scale", target_scale)):
            if not factor > 0:
                raise ValueError(f"transcoder {site} to {target}: {name} is {factor}; it must be positive")
        self.site, self.target = site, target
        self.activation = activation
        self.width = f
        self.scale, self.target_scale = scale, target_scale
        """Rows are multiplied by `scale` before they are encoded, what is written is divided by `target_scale`."""
        self.made_by = dict(made_by or {})
        """Provenance, fit for JSON: settings of the training run, subject and its weight hash."""
        self.W_enc = nn.Parameter(W_enc, requires_grad=False)
        self.b_enc = nn.Parameter(b_enc, requires_grad=False)
        self.W_dec = nn.Parameter(W_dec, requires_grad=False)
        self.b_dec = nn.Parameter(b_dec, requires_grad=False)

    @property
    def d(self) -> int:
        """Width of the site that is read."""
        return self.W_enc.shape[0]

    @property
    def d_out(self) -> int:
        """Width of the site that is written."""
        return self.W_dec.shape[1]

    @property
    def decoder(self) -> Tensor:
        """(f, d'): row j is what feature j writes per unit of its value, in the units of the target site."""
        return self.W_dec / self.target_scale

    def encode(self, x: Tensor) -> Codes:
        """x (..., d) -> codes (..., k). ValueError where the last axis is not d."""
        if x.shape[-1] != self.d:
            raise ValueError(f"transcoder reads {self.site} of width {self.d}; rows of width {x.shape[-1]} were given")
        return self.activation(x.to(self.W_enc.dtype) * self.scale @ self.W_enc + self.b_enc)

    def decode(self, codes: Codes) -> Tensor:
        """codes (..., k) -> ŷ (..., d'), in the dtype of the weights."""
        k = codes.values.shape[-1]
        written = weighted_rows(codes.values.reshape(-1, k), codes.indices.reshape(-1, k), self.W_dec)
        return (written.reshape(*codes.values.shape[:-1], self.d_out) + self.b_dec) / self.target_scale

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d) -> ŷ (..., d'), in the dtype of x."""
        return self.decode(self.encode(x)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.site} -> {self.target}, d={self.d}, d_out={self.d_out}, f={self.width}"
