"""How likely texts are as continuations of prompts, and what else was in the place of each of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from concept_probe.families.language.generate import Reader
from concept_probe.families.language.tokens import Batch, Spelled, pad


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


@dataclass(frozen=True, eq=False)
class ReadAnswer:
    """One continuation as it was read."""

    every: Float[Tensor, "k v"]
    """Log probabilities of all tokens in the place of each of its k."""
    ids: Int[Tensor, "k"]

    @property
    def total(self) -> Tensor:
        """Log probability of the whole."""
        first = self.every[0, self.ids[0]]
        rest = self.every[1:].gather(1, self.ids[1:, None])
        return first + rest.sum() if len(rest) else first


@dataclass(frozen=True, eq=False)
class TokenLogProbs:
    """Continuations token by token, one after another."""

    every: Float[Tensor, "m v"]
    """Log probabilities of all tokens in the place of each, in nats, float32."""
    ids: Int[Tensor, "m"]
    """The tokens themselves."""
    pair: Int[Tensor, "m"]
    """Which continuation each belongs to."""

    @classmethod
    def of(cls, read: Mapping[int, ReadAnswer]) -> TokenLogProbs:
        """Those of answers 0, 1, ... Raises ValueError for none."""
        if not read:
            raise ValueError("there is no answer to read")
        answers = [read[i] for i in range(len(read))]
        ids = torch.cat([a.ids for a in answers])
        pair = torch.repeat_interleave(torch.tensor([len(a.ids) for a in answers]))
        return cls(torch.cat([a.every for a in answers]), ids, pair.to(ids.device))

    @property
    def own(self) -> Float[Tensor, "m"]:
        """Log probability of each token itself."""
        return self.every.gather(1, self.ids[:, None])[:, 0]


@dataclass(frozen=True)
class Continuations:
    """What is asked of a batch of prompts."""

    rows: Sequence[int]
    """Of each, the row of its prompt."""
    queries: Sequence[int]
    """Of each, the query that taps are told of."""
    ends: Sequence[Spelled]
    """Its tokens."""
    fill: int
    """The token that fills a batch up."""


def read_answers(
    model: nn.Module,
    prompts: Batch,
    asked: Continuations,
    during: Callable[[Sequence[int], Batch], AbstractContextManager[None]],
) -> list[ReadAnswer]:
    """Each continuation of `asked`, in its order; the prompts are read once. `during` is entered around every pass, with the
    queries of its rows."""
    device, ends = prompts.ids.device, asked.ends
    reader = Reader(model, prompts.mask)
    first = {row: i for i, row in reversed(list(zip(asked.queries, asked.rows, strict=True)))}
    with during([first[r] for r in range(len(prompts.ids))], prompts):
        before = reader.read(prompts.ids, prompts.places, prompts.last).float().log_softmax(-1)
    every = [before[row : row + 1] for row in asked.rows]
    longer = [i for i, end in enumerate(ends) if len(end.ids) > 1]
    if longer:
        picked = torch.tensor([asked.rows[i] for i in longer], device=device)
        rest = pad([ends[i].part(0, len(ends[i].ids) - 1) for i in longer], asked.fill, "right", device)
        begun = prompts.places.amax(-1)[picked, None] + 1
        rest = replace(rest, places=torch.where(rest.mask == 1, rest.places + begun, -1))
        reader.choose(picked)
        reader.extend(rest.mask)
        with during([asked.queries[i] for i in longer], rest):
            logs = reader.read(rest.ids, rest.places).float().log_softmax(-1)
        for row, i in enumerate(longer):
            every[i] = torch.cat([every[i], logs[row, : len(ends[i].ids) - 1]])
    return [ReadAnswer(of, torch.tensor(end.ids, device=device)) for of, end in zip(every, ends, strict=True)]
