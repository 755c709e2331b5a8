"""Columns of a language model's feed-forwards, read through its unembedding.

A column v of a down projection is what its coefficient adds to the residual stream, once it has passed what stands in
between (`writing`: the norm and the factor that some models have there); the unembedding U turns it into scores of
tokens. With the final norm `folded`, v is first scaled by the norm's gain (and centred, where the norm centres), as the
norm does to everything that it reads, up to one positive factor per position; `plain` reads U v. Scores are those
before a factor or a cap on the logits, which keep their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from concept_probe.find.language.gain import NormGain, norm_gain
from concept_probe.find.language.writing import Writing
from concept_probe.registry import look_up
from concept_probe.types import Site

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject

Norm = Literal["folded", "plain"]
CHUNK = 256
"""Columns read at once: memory is this times the vocabulary."""


@dataclass(frozen=True)
class Unembedding:
    """How directions of the residual stream are scored as tokens."""

    matrix: Tensor
    """(v, d) float32"""
    norm: NormGain | None
    """None: the final norm is left out."""

    @classmethod
    def of(cls, subject: CausalLMSubject, norm: Norm) -> Unembedding:
        """The unembedding of a subject, with its final norm folded in or left out."""
        look_up({"folded": 0, "plain": 0}, norm, "treatment of the final norm")
        matrix = subject.matrix(subject.sites("unembed")[0]).detach().float()
        return cls(matrix, norm_gain(subject.final_norm, matrix.shape[1]) if norm == "folded" else None)

    def through_norm(self, columns: Tensor) -> Tensor:
        """Directions (d, m) of the stream as the unembedding meets them, rows (m, d) float32."""
        rows = columns.mT.to(self.matrix)
        return rows if self.norm is None else self.norm.to(self.matrix)(rows)

    def scores(self, columns: Tensor) -> Tensor:
        """Scores (m, v) of every token for directions (d, m) of the residual stream.

        Columns of a down projection are such once they are written: `Writing.of(subject, site)(columns)`.
        """
        return self.through_norm(columns) @ self.matrix.mT


@dataclass(frozen=True)
class TokenReading:
    """The tokens that the columns of one matrix speak for, strongest first."""

    site: Site
    """weight site of the matrix"""
    promoted: Tensor
    """(m, k) long: tokens with the largest scores of each column"""
    demoted: Tensor
    """(m, k) long: those with the smallest, which the column promotes when its coefficient is negative"""
    values: Tensor
    """(m, k) z scores of `promoted`: (score - mean over the vocabulary) / spread over the vocabulary"""
    lowest: Tensor
    """(m, k) z scores of `demoted`"""


def read_columns(
    subject: CausalLMSubject, *, norm: Norm = "folded", sites: Sequence[Site] | None = None, top: int = 20
) -> Iterator[TokenReading]:
    """Read every column of every down projection, as it is written, through the unembedding, one matrix at a time.

    >>> for reading in read_columns(subject):
    ...     print(reading.site, subject.tokenizer.convert_ids_to_tokens(reading.promoted[0].tolist()))

    Nothing of one matrix is kept when the next is read. Raises ValueError for a `top` beyond the vocabulary.
    """
    head = Unembedding.of(subject, norm)
    if not 0 < top <= head.matrix.shape[0]:
        raise ValueError(f"top is {top}; the vocabulary has {head.matrix.shape[0]} tokens")
    for site in sites if sites is not None else subject.sites("mlp_value"):
        columns = Writing.of(subject, site)(subject.matrix(site).detach())
        parts = [_extremes(head.scores(part), top) for part in columns.split(CHUNK, dim=1)]
        yield TokenReading(site, *(torch.cat(each) for each in zip(*parts, strict=True)))


def _extremes(scores: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean = scores.mean(1, keepdim=True)
    spread = scores.std(1, keepdim=True, correction=0).clamp_min(torch.finfo(scores.dtype).tiny)
    high, low = scores.topk(top, dim=1), scores.topk(top, dim=1, largest=False)
    return high.indices, low.indices, (high.values - mean) / spread, (low.values - mean) / spread
