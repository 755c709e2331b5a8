"""What a denoiser reads of prompts: states of their tokens, and perhaps one pooled embedding each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_probe.types import PAD


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser reads of a list of prompts."""

    states: Tensor
    """(n, t, d); with several text encoders, their states side by side along d, or one after another along t."""
    pooled: Tensor | None
    """(n, d) where the denoiser reads a pooled embedding, else None."""
    kinds: Tensor
    """(n, t) long, indices into TOKEN_KINDS."""

    guidance: Tensor | None = None
    """(n,) where the denoiser reads a weight of guidance, else None."""
    mask: Tensor | None = None
    """(n, t) bool, the states that the denoiser looks at; None: all."""
    lengths: tuple[int, ...] | None = None
    """How many of the t states each text encoder gave, where those of several stand one after another along t."""

    @classmethod
    def joined(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """The rows of all, in their order; what is optional where all have it.

        Where a mask says what is read, shorter rows are filled up to the longest with states that nothing reads.
        """
        parts = _level(parts)

        def rows(of: list[Tensor | None]) -> Tensor | None:
            known = [x for x in of if x is not None]
            return torch.cat(known) if known and len(known) == len(of) else None

        states, kinds = torch.cat([p.states for p in parts]), torch.cat([p.kinds for p in parts])
        pooled, guidance, mask = (rows([getattr(p, name) for p in parts]) for name in ("pooled", "guidance", "mask"))
        return cls(states, pooled, kinds, guidance, mask, parts[0].lengths)

    def then(self, other: Conditioning) -> Conditioning:
        """The rows of this one, then those of `other`; see `joined`."""
        return self.joined([self, other])

    def rows(self, index: Tensor) -> Conditioning:
        """The rows `index` (m,), repeats allowed."""
        pooled, guidance, mask = (None if x is None else x[index] for x in (self.pooled, self.guidance, self.mask))
        return Conditioning(self.states[index], pooled, self.kinds[index], guidance, mask, self.lengths)

    def stretches(self) -> list[tuple[int, int]]:
        """From where to where along t the states of each text encoder stand."""
        ends = list(accumulate(self.lengths or (self.states.shape[1],)))
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def zeroed(self, rows: Tensor) -> Conditioning:
        """States and pooled embeddings of zeros at `rows`, bool (n,); gradients reach the others."""
        rows = rows.to(self.states.device)
        pooled = None if self.pooled is None else self.pooled.masked_fill(rows[:, None], 0)
        return replace(self, states=self.states.masked_fill(rows[:, None, None], 0), pooled=pooled)


def _level(parts: Sequence[Conditioning]) -> Sequence[Conditioning]:
    """Rows of one length, filled up where masks say what is read."""
    longest = max(part.states.shape[1] for part in parts)
    return [part if part.states.shape[1] == longest else _filled(part, longest) for part in parts]


def _filled(part: Conditioning, length: int) -> Conditioning:
    more = length - part.states.shape[1]
    if part.mask is None:
        raise ValueError(
            f"conditions of {part.states.shape[1]} and {length} tokens can't stand in one batch: the denoiser reads every "
            "state, so filling one up would change its picture"
        )
    kinds, mask = F.pad(part.kinds, (0, more), value=PAD), F.pad(part.mask, (0, more))
    return replace(part, states=F.pad(part.states, (0, 0, 0, more)), kinds=kinds, mask=mask)
