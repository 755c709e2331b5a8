"""What a norm does to a direction, measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class NormGain:
    """What a norm does to a direction, up to one positive factor: x -> gain * (x - mean(x)) or gain * x."""

    gain: Tensor
    """(d,)"""
    centres: bool
    """Whether it takes the mean over the width away, as LayerNorm does and RMSNorm does not."""

    def to(self, like: Tensor) -> NormGain:
        """The same, with the dtype and on the device of a tensor."""
        return NormGain(self.gain.to(like), self.centres)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)"""
        return self.gain * (x - x.mean(-1, keepdim=True) if self.centres else x)


def norm_gain(norm: nn.Module, width: int) -> NormGain:
    """Measure a norm's gain instead of guessing it from its class: gains are kept as w, as 1 + w, or not at all.

    Raises ValueError if the module is not of the form gain * (x - mean) / spread + bias.
    """
    weight = next((p for p in norm.parameters()), torch.zeros(()))
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    generator = torch.Generator().manual_seed(0)
    sign = torch.randint(0, 2, (width,), generator=generator) * 2.0 - 1
    x = sign * (1 + torch.rand(width, generator=generator))
    x, y = (v - v.mean() for v in (x, torch.randn(width, generator=generator)))

    def odd(v: Tensor) -> Tensor:
        """What the norm does to v without its bias; v is large, so that epsilon does not count.

        Its `forward` alone is asked: a tap on the norm has no part in what the norm is.
        """
        big = (1000 * v).to(weight)
        with torch.no_grad():
            return ((norm.forward(big) - norm.forward(-big)) / 2).to("cpu", dtype)

    def scaled(v: Tensor) -> Tensor:
        return (v / v.square().mean().sqrt()).to(dtype)

    gain = odd(x) / scaled(x)
    centres = bool(odd(torch.ones(width)).abs().max() < 1e-3 * gain.abs().max())
    miss = (odd(y) - gain * scaled(y)).abs().max()
    if not miss <= 0.02 * gain.abs().max() * scaled(y).abs().max():
        raise ValueError(f"{type(norm).__name__} is no norm with a gain; read the columns with norm='plain'")
    return NormGain(gain, centres)
