"""What is asked of a language model that is taught."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from concept_probe.types import Prompt, Query, Sampling


class Teachable(Protocol):
    """What is asked of a language model here, see `families.CausalLMSubject`."""

    @property
    def name(self) -> str: ...

    def log_probs(self, pairs: Sequence[tuple[Prompt, str]], *, batch: int = 16) -> Any:
        """`total`, `tokens` and `mean` (n,): log probability of each text as the continuation of its prompt."""
        ...

    def next_logits(self, prompts: Sequence[Prompt], *, batch: int = 16, every: bool = False) -> Tensor:
        """Logits (n, v) of the token that follows each prompt, or `every` token of each, with gradients."""
        ...

    def generate(self, queries: Sequence[Query], sampling: Sampling = ...) -> tuple[str, ...]: ...
    def parameter(self, site: Any) -> nn.Parameter: ...
    def sites(self, role: str) -> tuple[Any, ...]: ...
