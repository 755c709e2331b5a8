"""How the parts of a tensor are read as coefficients at a site, and put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from concept_probe.families.text.kinds import kind_numbers
from concept_probe.types import TOKEN_KINDS, Codes, Moment, Site, SparseCoder


class CoefficientReader(Protocol):
    """Parts of the tensor at one site: m coefficients in every row, each owned by a player."""

    @property
    def site(self) -> Site: ...

    def read(self, x: Tensor) -> Tensor:
        """x (b, t, d) -> coefficients (b, t, m)."""
        ...

    def put(self, x: Tensor, c: Tensor, new: Tensor, moment: Moment) -> Tensor:
        """x (b, t, d) with `new` (b, t, m) in place of its coefficients c (b, t, m)."""
        ...

    def kept(self, keep: Tensor, moment: Moment, like: Tensor) -> Tensor:
        """How much of each coefficient stays, `keep` (players,) being how much of each player does: (m,) or (b, t, 1)."""
        ...


@dataclass(frozen=True)
class ColumnReader:
    """Columns of the matrix that reads this site: their coefficients are values of the site itself."""

    site: Site
    """What goes into the matrix."""
    items: tuple[int, ...]
    owners: tuple[int, ...]
    """The player of each column."""

    def read(self, x: Tensor) -> Tensor:
        return x[..., list(self.items)]

    def put(self, x: Tensor, c: Tensor, new: Tensor, moment: Moment) -> Tensor:
        return x.index_copy(-1, torch.tensor(self.items, device=x.device), new.to(x.dtype))

    def kept(self, keep: Tensor, moment: Moment, like: Tensor) -> Tensor:
        return keep[list(self.owners)].to(like)


@dataclass(frozen=True, eq=False)
class FeatureReader:
    """Features of a sparse autoencoder; what it leaves unexplained stays."""

    codec: SparseCoder
    features: tuple[int, ...]
    owners: tuple[int, ...]
    """The player of each feature."""

    @property
    def site(self) -> Site:
        return self.codec.site

    def read(self, x: Tensor) -> Tensor:
        codes = self.codec.encode(x)
        place = torch.full((self.codec.width,), len(self.features), device=codes.indices.device)
        place[list(self.features)] = torch.arange(len(self.features), device=place.device)
        return Codes(codes.values, place[codes.indices]).dense(len(self.features) + 1)[..., :-1]

    def put(self, x: Tensor, c: Tensor, new: Tensor, moment: Moment) -> Tensor:
        change = new - c
        rows = change @ self.codec.decoder.detach()[list(self.features)].to(change)
        return x + self.codec.encode(x).in_row_units(rows).to(x.dtype)

    def kept(self, keep: Tensor, moment: Moment, like: Tensor) -> Tensor:
        return keep[list(self.owners)].to(like)


@dataclass(frozen=True, eq=False)
class DirectionReader:
    """Directions of a site: x is read along the columns of `dual`, and what is read is written along `basis`."""

    site: Site
    basis: Tensor
    """(d, m)"""
    dual: Tensor
    """(d, m)"""
    owners: tuple[int, ...]
    """The player of each direction."""
    mean: Tensor | None = None
    """(d,) the point from which is read; None for the origin."""

    def read(self, x: Tensor) -> Tensor:
        return (x if self.mean is None else x - self.mean.to(x)) @ self.dual.to(x)

    def put(self, x: Tensor, c: Tensor, new: Tensor, moment: Moment) -> Tensor:
        return x + (new - c) @ self.basis.to(x).mT

    def kept(self, keep: Tensor, moment: Moment, like: Tensor) -> Tensor:
        return keep[list(self.owners)].to(like)


@dataclass(frozen=True)
class TokenSet:
    """Rows of a site that belong to one player."""

    owner: int
    kinds: tuple[str, ...] = TOKEN_KINDS
    steps: tuple[int, ...] | None = None
    """None: all."""
    turn: int | None = None
    """Seed of a random turn of what is taken out, by order and sign of the axes: as long, in no direction. None: as it is."""


@dataclass(frozen=True)
class SpotReader:
    """All of a site, at some kinds of token and in some steps."""

    site: Site
    sets: tuple[TokenSet, ...]
    """No two share a row."""

    def read(self, x: Tensor) -> Tensor:
        return x

    def put(self, x: Tensor, c: Tensor, new: Tensor, moment: Moment) -> Tensor:
        out = new
        for one in self.sets:
            rows = self.rows(one, moment, x) if one.turn is not None else None
            if rows is not None:
                out = torch.where(rows[..., None], x + _turned(new - x, one.turn or 0), out)
        return out

    def kept(self, keep: Tensor, moment: Moment, like: Tensor) -> Tensor:
        out = torch.ones(like.shape[:2], device=like.device, dtype=like.dtype)
        for one in self.sets:
            rows = self.rows(one, moment, like)
            if rows is not None:
                out = torch.where(rows, keep[one.owner].to(like), out)
        return out[..., None]

    def rows(self, one: TokenSet, moment: Moment, like: Tensor) -> Tensor | None:
        """Bool (b, t): the rows of a set in this moment; None where it is not the set's time."""
        if one.steps is not None and moment.step not in one.steps:
            return None
        if set(one.kinds) >= set(TOKEN_KINDS):
            return torch.ones(like.shape[:2], dtype=torch.bool, device=like.device)
        if moment.token_kinds is None or moment.token_kinds.shape != like.shape[:2]:
            raise ValueError(
                f"site {str(self.site)!r} was to be taken out at tokens {', '.join(one.kinds)}, and its rows are no text "
                "tokens; give it without kinds of token"
            )
        numbers = torch.tensor(kind_numbers(one.kinds), device=like.device)
        return torch.isin(moment.token_kinds.to(like.device), numbers)


def _turned(change: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(change.shape[-1], generator=generator).to(change.device)
    signs = torch.randint(2, (change.shape[-1],), generator=generator).to(change) * 2 - 1
    return change[..., order] * signs
