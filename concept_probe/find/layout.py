"""How the tensor of a site is read as rows: which axis is the width, and which rows are which token."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.families.text.kinds import kind_numbers
from concept_probe.types import TOKEN_KINDS, Moment, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject


def has_tokens(subject: Subject, site: Site) -> bool:
    """Whether the rows of `site` are text tokens (rather than patches of a picture)."""
    return subject.axis(site) == "token"


def last(x: Tensor) -> Tensor:
    """`x` with its width last: (b, t, d) as it is, a feature map (b, d, h, w) as (b, h, w, d)."""
    return x.movedim(1, -1) if x.ndim == 4 else x


def back(x: Tensor) -> Tensor:
    """Undo `last`."""
    return x.movedim(-1, 1) if x.ndim == 4 else x


def after_first(x: Tensor, moment: Moment) -> Tensor | None:
    """Bool (b, t, 1): the tokens of `x` (b, t, d) that stand behind the first of their text and are read at all.

    None where every position is read and sees the whole text. Attention rests on the first token of a text that is
    read forward: it knows nothing of what follows, and whatever moves it breaks the text.
    """
    if moment.places is None or moment.places.shape != x.shape[:2]:
        return None
    return (moment.places.to(x.device) > 0).unsqueeze(-1)


def token_mask(x: Tensor, moment: Moment, kinds: Collection[str]) -> Tensor | None:
    """Bool (b, t, 1): the tokens of `x` (b, t, d) whose kind is among `kinds`; None where that is all of them.

    Raises ValueError where the moment does not say which token is which.
    """
    if set(kinds) >= set(TOKEN_KINDS):
        return None
    if moment.token_kinds is None:
        raise ValueError("this moment has no token kinds, so an action on some kinds of token can't be placed")
    rows = moment.token_kinds.to(x.device)
    if rows.shape != x.shape[:2]:
        raise ValueError(f"token kinds are {tuple(rows.shape)}, the tensor {tuple(x.shape)}: not one row per token")
    return torch.isin(rows, torch.tensor(kind_numbers(kinds), device=rows.device)).unsqueeze(-1)
