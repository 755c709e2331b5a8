"""What a denoiser reads of prompts: states of their tokens, and perhaps one pooled embedding each."""

from __future__ import annotations

from dataclasses import dataclass

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

    def then(self, other: Conditioning) -> Conditioning:
        """The rows of this one, then those of `other`; pooled where both are."""
        pooled = None if self.pooled is None or other.pooled is None else torch.cat([self.pooled, other.pooled])
        states, kinds = torch.cat([self.states, other.states]), torch.cat([self.kinds, other.kinds])
        return Conditioning(states, pooled, kinds)

    def rows(self, index: Tensor) -> Conditioning:
        """The rows `index` (m,), repeats allowed."""
        pooled = None if self.pooled is None else self.pooled[index]
        return Conditioning(self.states[index], pooled, self.kinds[index])

    def zeroed(self, rows: Tensor) -> Conditioning:
        """Zeros at `rows`, bool (n,); gradients reach the others."""
        rows = rows.to(self.states.device)
        pooled = None if self.pooled is None else self.pooled.masked_fill(rows[:, None], 0)
        return Conditioning(self.states.masked_fill(rows[:, None, None], 0), pooled, self.kinds)

    def added(self, height: int, width: int, like: Tensor) -> dict[str, Tensor] | None:
        """What a denoiser reads beside the states where it reads a pooled embedding: that, and a picture's size."""
        if self.pooled is None:
            return None
        ids = torch.tensor([[height, width, 0, 0, height, width]], device=like.device, dtype=like.dtype)
        return {"text_embeds": self.pooled, "time_ids": ids.expand(len(like), -1)}
