"""How likely texts are as continuations of prompts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LogProbs:
    """How likely texts are as continuations of prompts."""

    total: Tensor
    """(n,) float32: sum of log probabilities over the continuation's tokens, in nats"""
    tokens: Tensor
    """(n,) long: how many tokens the continuation has"""

    @property
    def mean(self) -> Tensor:
        """(n,) log probability per token, in nats."""
        return self.total / self.tokens
