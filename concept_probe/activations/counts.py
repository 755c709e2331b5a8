"""How many rows each prompt gives at a site, known without running them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.families.text.kinds import kind_numbers
from concept_probe.types import TOKEN_KINDS, Query

if TYPE_CHECKING:
    from concept_probe.families import Subject

_PART = 1024


@dataclass(frozen=True)
class RowCounts:
    """Rows per prompt at one site."""

    of_each: tuple[int, ...]
    """Per prompt, in the order given."""
    width: int
    """Numbers per row, d."""

    @cached_property
    def total(self) -> int:
        """Rows of all prompts once."""
        return sum(self.of_each)

    def running(self, order: Callable[[int], Tensor]) -> Callable[[int, int], int]:
        """A function of (epoch, place): rows before that place, where `order` gives the prompts (n,) of an epoch."""
        if len(set(self.of_each)) == 1:
            return lambda epoch, place: epoch * self.total + place * self.of_each[0]
        each = torch.tensor(self.of_each)

        @lru_cache(maxsize=3)
        def sums(epoch: int) -> Tensor:
            return each[order(epoch)].cumsum(0)

        return lambda epoch, place: epoch * self.total + (int(sums(epoch)[place - 1]) if place else 0)

    @classmethod
    def of(
        cls, subject: Subject, queries: Sequence[Query], one: Tensor, kinds: Sequence[str] | None, *, first: bool = True,
        component: str = "",
    ) -> RowCounts:  # fmt: skip
        """From the rows `one` (n, d) of the first prompt alone; `first` says whether first positions are among them.
        `component` is where they are from: a text encoder, with tokens of its own, or what reads them all.

        Where all tokens of filled-up texts are kept, every prompt gives as many; else tokenising says how many. Raises
        ValueError if no row of the first prompt is of these kinds.
        """
        rows, width = one.shape
        if not rows:
            what = f" of kinds {', '.join(kinds)}" if kinds else ""
            raise ValueError(f"the first prompt, {queries[0].prompt.text!r}, gives no row{what}; put another first")
        if kinds is None and not subject.reads_forward:
            return cls((rows,) * len(queries), width)
        wanted = torch.tensor(kind_numbers(TOKEN_KINDS if kinds is None else kinds))
        parts: list[Tensor] = []
        encoders = list(getattr(getattr(subject, "text", None), "encoders", {}))
        for at in range(0, len(queries), _PART):
            tokens = subject.tokenise([q.prompt for q in queries[at : at + _PART]])
            found = tokens.kinds_of[encoders.index(component)] if component in encoders else tokens.kinds
            kept = torch.isin(found, wanted.to(found.device))
            if subject.reads_forward:  # positions that only fill a batch give no rows there
                read = tokens.masks[0]
                kept = kept & (read > 0) & (torch.ones_like(kept) if first else read.cumsum(1) > 1)
            parts.append(kept.sum(1).cpu())
        tokens = torch.cat(parts)
        passes, rest = divmod(rows, max(1, int(tokens[0])))
        if rest or not int(tokens[0]):
            raise ValueError(
                f"the first prompt gives {rows} rows and has {int(tokens[0])} tokens of kinds {', '.join(kinds or TOKEN_KINDS)}, so "
                "rows cannot be counted ahead; capture to a store, or keep every kind"
            )
        return cls(tuple((tokens * passes).tolist()), width)
