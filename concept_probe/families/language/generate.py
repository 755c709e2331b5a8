"""Texts written token by token: each row draws from a source of its own, whatever stands beside it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from concept_probe.families.language.tokens import Batch
from concept_probe.types import CONTENT

CACHES = ("cache", "past_key_values")
"""Names, in one library version or another, of the argument that holds what was read before."""


@dataclass
class Reader:
    """One batch of a model's input, read in pieces: what was read before is kept."""

    model: nn.Module
    mask: Tensor
    """(b, t) long: positions read so far; 0 where one only fills the batch."""
    cache: Any = None

    def __post_init__(self) -> None:
        if self.cache is None:  # what a layer keeps is for its configuration to say: all, a window, or a state
            self.cache = DynamicCache(config=self.model.config)  # pyright: ignore[reportArgumentType]

    def read(self, ids: Tensor, places: Tensor, at: Tensor | None = None) -> Tensor:
        """Logits after each of `ids` (b, t), which stand at `places` (b, t) of their texts: (b, t, v).

        With `at` (b,), only those after one position of each row: (b, v).
        """
        takes = inspect.signature(self.model.forward).parameters
        kept = {name: self.cache for name in CACHES if name in takes}
        if not kept:
            raise TypeError(f"{type(self.model).__name__} takes none of {CACHES}, so it can't go on from what it read")
        return _logits(self.model, ids, self.mask, places, at, {"use_cache": True, **kept})

    def extend(self, mask: Tensor) -> None:
        """Make room for more positions, of which each row reads those where `mask` (b, t) is 1."""
        self.mask = torch.cat([self.mask, mask], dim=1)

    def choose(self, rows: Tensor) -> None:
        """Go on with `rows` (m,) of the batch, repeats allowed."""
        self.cache.reorder_cache(rows)  # of any length, and known to layers that keep a state
        self.mask = self.mask[rows]


def read_once(model: nn.Module, batch: Batch, at: Tensor | None = None) -> Tensor:
    """Logits of a batch that nothing will follow: (n, t, v), or with `at` (n,) those after one position each, (n, v)."""
    return _logits(model, batch.ids, batch.mask, batch.places, at, {"use_cache": False})


def _logits(
    model: nn.Module, ids: Tensor, mask: Tensor, places: Tensor, at: Tensor | None, options: dict[str, Any]
) -> Tensor:
    """One pass; the unembedding, which costs as much as several blocks, reads no more positions than are asked for."""
    positions, takes = None if at is None else at.unique(), inspect.signature(model.forward).parameters
    if positions is not None and "logits_to_keep" in takes:
        options = {**options, "logits_to_keep": positions}
    if "position_ids" in takes or any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        options = {**options, "position_ids": places.clamp_min(0)}
    out = model(input_ids=ids, attention_mask=mask, **options).logits
    if at is None:
        return out
    column = at if "logits_to_keep" not in options else torch.searchsorted(positions, at)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return out[torch.arange(len(out), device=out.device), column]


class TokenChoice:
    """Picks each row's next token: the likeliest, or one drawn at `temperature` from the row's own source.

    A draw is one uniform number per row and token, put through the cumulative distribution: neither the batch nor
    the device has a part in it.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        if temperature < 0:
            raise ValueError(f"temperature {temperature} is below 0; 0 takes the likeliest token each time")
        self.temperature = temperature
        self.sources = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

    def __call__(self, logits: Tensor) -> Tensor:
        """(b, v) -> (b,) long."""
        if not bool(torch.isfinite(logits).any(-1).all()) or bool(logits.isnan().any()):
            raise FloatingPointError("the next token's logits are not finite; check the weights, or run in float32")
        if self.temperature == 0:
            return logits.argmax(-1)
        drawn = torch.stack([torch.rand(1, generator=s, dtype=torch.float64) for s in self.sources])
        below = (logits.double() / self.temperature).softmax(-1).cumsum(-1)
        # Scaled by the last sum, so that rounding leaves no draw beyond it.
        return (
            torch.searchsorted(below, drawn.to(below.device) * below[:, -1:]).squeeze(1).clamp_max(below.shape[1] - 1)
        )


def write(
    model: nn.Module,
    batch: Batch,
    choose: TokenChoice,
    *,
    tokens: int,
    ends: Collection[int],
    step: Callable[[int, Tensor, Tensor], Any],
) -> list[list[int]]:
    """Up to `tokens` token ids per row, without the end mark.

    `step(k, kinds, places)` gives the context manager in which the pass runs that follows k written tokens: k is 0
    while the prompt is read.
    """
    reader = Reader(model, batch.mask)
    places, kinds = batch.places, batch.kinds
    with step(0, kinds, places):
        logits = reader.read(batch.ids, places, batch.last)
    following = choose(logits)
    written: list[list[int]] = [[] for _ in range(len(batch.ids))]
    open_rows = set(range(len(written)))
    at = batch.places.amax(-1) + 1
    for k in range(1, tokens + 1):
        chosen = following.tolist()
        for i in sorted(open_rows):
            if chosen[i] in ends:
                open_rows.discard(i)
            else:
                written[i].append(chosen[i])
        if not open_rows or k == tokens:
            break
        reader.extend(torch.ones_like(at)[:, None])
        with step(k, torch.full_like(at, CONTENT)[:, None], at[:, None]):
            logits = reader.read(following[:, None], at[:, None])
        following = choose(logits[:, -1])
        at = at + 1
    return written
