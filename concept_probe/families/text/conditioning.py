"""What a denoiser reads of prompts: states of their tokens, and perhaps one pooled embedding each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser reads of a list of prompts."""

    states: Tensor
    """(n, t, d); with two text encoders, their states side by side along d."""
    pooled: Tensor | None
    """(n, d) where the denoiser reads a pooled embedding, else None."""
    kinds: Tensor
    """(n, t) long, indices into TOKEN_KINDS."""

    guidance: Tensor | None = None
    """(n,) where the denoiser reads a weight of guidance, else None."""

    def then(self, other: Conditioning) -> Conditioning:
        """The rows of this one, then those of `other`; what is optional where both have it."""
        states, kinds = torch.cat([self.states, other.states]), torch.cat([self.kinds, other.kinds])
        return Conditioning(states, _both(self.pooled, other.pooled), kinds, _both(self.guidance, other.guidance))

    def rows(self, index: Tensor) -> Conditioning:
        """The rows `index` (m,), repeats allowed."""
        pooled, guidance = (None if x is None else x[index] for x in (self.pooled, self.guidance))
        return Conditioning(self.states[index], pooled, self.kinds[index], guidance)

    def zeroed(self, rows: Tensor) -> Conditioning:
        """States and pooled embeddings of zeros at `rows`, bool (n,); gradients reach the others."""
        rows = rows.to(self.states.device)
        pooled = None if self.pooled is None else self.pooled.masked_fill(rows[:, None], 0)
        return replace(self, states=self.states.masked_fill(rows[:, None, None], 0), pooled=pooled)


def _both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else torch.cat([a, b])
