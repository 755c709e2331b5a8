"""What a dictionary in training consists of, with the gradient of each part."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DictionaryWeights:
    """What is learned, over the f features that this process holds; each has its gradient in `.grad`."""

    encoder: Tensor
    """(f, d): row j reads feature j. Row by feature, like the decoder, because gradients come by feature."""
    b_enc: Tensor
    """(f,)"""
    decoder: Tensor
    """(f, d')"""
    b_dec: Tensor
    """(d',)"""
    tied: bool = True
    """Whether b_dec is subtracted before encoding; not where input and output are different sites."""

    def parameters(self) -> dict[str, Tensor]:
        return {"encoder": self.encoder, "b_enc": self.b_enc, "decoder": self.decoder, "b_dec": self.b_dec}
