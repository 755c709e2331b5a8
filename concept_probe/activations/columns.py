"""What every row of activations says of itself: its columns, as shards hold them and as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from concept_probe.registry import UnknownName

FIRST_COLUMNS = ("prompt", "token", "kind", "step", "branch", "patch")
"""Whole numbers, which every store has."""
COLUMNS = (*FIRST_COLUMNS, "sigma")
"""What a row says. `sigma` is how much noise there is in what the denoiser sees in the row's own pass, as `Moment.sigma`
has it."""


class RowColumns(dict[str, Tensor]):
    """Columns by name; one that is asked for and isn't there is named, with what can be done.

    >>> block.columns["sigma"]
    UnknownName: column 'sigma' not found; known: prompt, ... (acts was captured before rows said it; ...)
    """

    def __init__(self, columns: Mapping[str, Tensor], store: object) -> None:
        super().__init__(columns)
        self.store = store

    def __missing__(self, name: str) -> Tensor:
        why = "rows say nothing else"
        if name in COLUMNS:
            why = f"{self.store} was captured before rows said it, or read without it; capture again into a new folder"
        raise UnknownName("column", name, self, why)


def columns_in(header: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of a store, as the header of its manifest says; stores of before `sigma` do not say."""
    return tuple(header.get("columns", FIRST_COLUMNS))


def stored_column(name: str, values: Tensor) -> Tensor:
    """A column (n,) as shards hold it: 4 bytes a row."""
    return values.to(torch.int32 if name in FIRST_COLUMNS else torch.float32)


def read_column(name: str, values: Tensor) -> Tensor:
    """A column (n,) as rows in memory have it: long, or float32 where it is no whole number."""
    return values.long() if name in FIRST_COLUMNS else values
