"""How a prompt's weight reaches the denoiser: by a second branch, by a number that it reads, or not at all."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar, final

import torch
from torch import Tensor

from concept_probe.families.text.conditioning import Conditioning
from concept_probe.types import Branch

Row = TypeVar("Row")


class Guidance(abc.ABC):
    """What one batch of b pictures becomes for the denoiser, and what becomes of its predictions."""

    needs_null_text: bool = False
    """Whether it asks for predictions without a prompt."""

    @abc.abstractmethod
    def branches(self, count: int) -> tuple[Branch, ...]:
        """The branch of each row that the denoiser gets for `count` pictures."""

    @abc.abstractmethod
    def rows(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        """What belongs to each picture, for each row that the denoiser gets."""

    @abc.abstractmethod
    def inputs(self, latents: Tensor) -> Tensor:
        """Latents (b, ...) for each row that the denoiser gets."""

    @abc.abstractmethod
    def condition(self, text: Conditioning, null: Conditioning | None) -> Conditioning:
        """The condition of each row, from that of the pictures, b rows, and of no prompt, one row."""

    @abc.abstractmethod
    def combined(self, prediction: Tensor) -> Tensor:
        """One prediction (b, ...) for each picture."""

    @abc.abstractmethod
    def rescaled(self, share: float) -> Guidance:
        """The same, with a share 0..1 of `rescale` in each prediction. Raises ValueError where nothing can be rescaled."""


@final
@dataclass(frozen=True)
class ClassifierFree(Guidance):
    """ε_∅ + scale (ε_c - ε_∅) (arXiv 2207.12598, eq. 6): both branches in one batch, unconditional rows first."""

    scale: float
    rescale: float = 0.0
    """The share 0..1 of the prediction that is brought to the spread of that under the prompt (arXiv 2305.08891, section
    3.4)."""
    length: Callable[[Tensor], Tensor] | None = None
    """What the prediction keeps of that under the prompt, where its pipeline has it so: lengths of its parts, (n, ...) to
    what can be multiplied with it."""
    needs_null_text = True

    def rescaled(self, share: float) -> ClassifierFree:
        return replace(self, rescale=share)

    def branches(self, count: int) -> tuple[Branch, ...]:
        return ("uncond",) * count + ("cond",) * count

    def rows(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        return rows + rows

    def inputs(self, latents: Tensor) -> Tensor:
        return torch.cat([latents, latents])

    def condition(self, text: Conditioning, null: Conditioning | None) -> Conditioning:
        if null is None:
            raise ValueError("classifier-free guidance needs the condition of no prompt")
        first = torch.zeros(len(text.states), dtype=torch.long, device=text.states.device)
        return null.rows(first).then(text)

    def combined(self, prediction: Tensor) -> Tensor:
        uncond, cond = prediction.chunk(2)
        guided = uncond + self.scale * (cond - uncond)
        if self.length is not None:
            guided = guided * (self.length(cond) / self.length(guided))
        return guided if self.rescale == 0 else _rescaled(guided, cond, self.rescale)


class _OneBranch(Guidance):
    """One row for each picture."""

    @final
    def branches(self, count: int) -> tuple[Branch, ...]:
        return ("cond",) * count

    @final
    def rows(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        return rows

    @final
    def inputs(self, latents: Tensor) -> Tensor:
        return latents

    @final
    def combined(self, prediction: Tensor) -> Tensor:
        return prediction


@final
@dataclass(frozen=True)
class Distilled(_OneBranch):
    """A number that the denoiser reads beside the text, as one that was distilled from guidance does."""

    scale: float

    def rescaled(self, share: float) -> Distilled:
        if share:
            raise ValueError(
                f"guidance_rescale {share} was asked of a denoiser that was distilled from guidance: it has one prediction "
                "and none to rescale it by; leave it 0"
            )
        return self

    def condition(self, text: Conditioning, null: Conditioning | None) -> Conditioning:
        return replace(text, guidance=torch.full((len(text.states),), self.scale, device=text.states.device))


@final
@dataclass(frozen=True)
class NoGuidance(_OneBranch):
    """The prediction under the prompt, as it is."""

    def rescaled(self, share: float) -> NoGuidance:
        """As it is: its spread is that under the prompt already."""
        return self

    def condition(self, text: Conditioning, null: Conditioning | None) -> Conditioning:
        return text


def classifier_free(scale: float) -> Guidance:
    """Classifier-free guidance; at 1 or less nothing is asked without a prompt."""
    return ClassifierFree(scale) if scale > 1 else NoGuidance()


def _rescaled(guided: Tensor, cond: Tensor, share: float) -> Tensor:
    """`share` of `guided` with the standard deviation that `cond` has in each row, and the rest as it is."""
    axes = tuple(range(1, cond.ndim))
    level = cond.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    return share * (guided * level) + (1 - share) * guided
