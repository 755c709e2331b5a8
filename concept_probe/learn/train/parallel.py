"""Processes that train one autoencoder together, over torch.distributed (`torchrun` or `accelerate launch`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from concept_probe.registry import check_choice

SplitBy = Literal["rows", "features"]


@dataclass(frozen=True)
class Team:
    """This process among those that train together.

    split `rows`: every process holds all weights and sees its part of each batch; gradients are summed.
    split `features`: every process sees each batch whole and holds its part of the features, with their moments;
    reconstructions are summed. For dictionaries that outgrow one device.
    """

    rank: int = 0
    size: int = 1
    split: SplitBy = "rows"

    @classmethod
    def here(cls, split: SplitBy) -> Team:
        """The processes of torch.distributed where it was initialised; otherwise this process alone."""
        check_choice(split, SplitBy, "split")
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), split)
        return cls(split=split)

    @property
    def leads(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def part(self, n: int, what: str) -> slice:
        """This process's part of n rows or features; ValueError where they do not divide evenly."""
        if n % self.size:
            raise ValueError(f"{n} {what} do not divide among {self.size} processes; make them a multiple of it")
        share = n // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def rows(self, batch: int) -> slice:
        """The rows of each batch that this process sees."""
        return self.part(batch, "rows of a batch") if self.split == "rows" else slice(0, batch)

    def features(self, f: int) -> slice:
        """The features that this process holds."""
        return self.part(f, "features") if self.split == "features" else slice(0, f)

    def sum_rows(self, x: Tensor) -> Tensor:
        """`x` summed, in place, over processes that hold different rows."""
        return self._sum(x) if self.split == "rows" else x

    def sum_features(self, x: Tensor) -> Tensor:
        """`x` summed, in place, over processes that hold different features."""
        return self._sum(x) if self.split == "features" else x

    def gather_rows(self, x: Tensor) -> Tensor:
        """`x` of all processes that hold different rows, one after the other."""
        return self._gather(x) if self.split == "rows" else x

    def gather_features(self, x: Tensor, dim: int = 0) -> Tensor:
        """`x` of all processes that hold different features, side by side along `dim`."""
        return self._gather(x.movedim(dim, 0)).movedim(0, dim) if self.split == "features" else x

    def agree(self, value: str) -> str:
        """The first process's `value`, everywhere: what was measured there must hold for all."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def _sum(self, x: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def _gather(self, x: Tensor) -> Tensor:
        if self.size == 1:
            return x
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)
