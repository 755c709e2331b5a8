"""Maps over a picture: where it looks for a word, or where it needs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from concept_probe.figures.grid import image_grid
from concept_probe.figures.theme import AFTER, CONTROL

LEAST, MOST = 0.12, 0.92
"""How much colour covers a picture at the ends of the scale."""


def over_picture(
    picture: Float[Tensor, "3 H W"], values: Float[Tensor, "h w"], ends: tuple[float, float]
) -> Float[Tensor, "3 H W"]:
    """A picture in grey under its map, each value a block as large as it is. `ends` are the values with the least and the
    most colour; where the lower is below zero, zero has none, and what is below it has a colour of its own."""
    low, high = ends
    grey = (0.25 + 0.75 * picture.float().mean(0, keepdim=True)).expand(3, -1, -1)
    blocks = F.interpolate(values.float()[None, None], grey.shape[1:], mode="nearest")[0]
    if low < 0:
        share = (blocks / max(-low, high)).clamp(-1, 1)
        cover, colour = MOST * share.abs(), torch.where(share >= 0, _rgb(AFTER), _rgb(CONTROL))
    else:
        share = ((blocks - low) / ((high - low) or 1.0)).clamp(0, 1)
        cover, colour = LEAST + (MOST - LEAST) * share, _rgb(AFTER)
    return grey * (1 - cover) + colour * cover


def attention_overlay(
    picture: Float[Tensor, "3 H W"], maps: Mapping[str, Float[Tensor, "h w"]], *, cell: int = 176
) -> go.Figure:
    """The picture, and beside it each map over it, named, with the values at the ends of its colours.

    Each map has its own scale: how much of it there is in all differs from word to word, and where it is does not show then.
    """
    if not maps:
        raise ValueError("no map was given to draw")
    tiles, captions = [picture.float()], ["picture"]
    for name, values in maps.items():
        low, high = float(values.min()), float(values.max())
        tiles.append(over_picture(picture, values, (low, high)))
        captions.append(f"{name}  {low:.2g} to {high:.2g}")
    return image_grid(torch.stack(tiles), captions, columns=min(len(tiles), 6), cell=cell, aspect=_aspect(picture))


def attention_grid(
    picture: Float[Tensor, "3 H W"], maps: Float[Tensor, "rows columns h w"], rows: Sequence[str],
    columns: Sequence[str], *, cell: int = 112,
) -> go.Figure:  # fmt: skip
    """One map for each row and column, such as layer and step; the maps of a row share one scale."""
    if maps.shape[:2] != (len(rows), len(columns)):
        raise ValueError(f"{tuple(maps.shape[:2])} maps were given with {len(rows)} rows and {len(columns)} columns")
    ends = [(float(row.min()), float(row.max())) for row in maps]
    tiles = [over_picture(picture, one, end) for row, end in zip(maps, ends, strict=True) for one in row]
    captions = list(columns) * len(rows)
    return image_grid(
        torch.stack(tiles), captions, columns=len(columns), row_names=list(rows), cell=cell, aspect=_aspect(picture)
    )


def _aspect(picture: Tensor) -> float:
    return picture.shape[-2] / picture.shape[-1]


def _rgb(colour: str) -> Float[Tensor, "3 1 1"]:
    return torch.tensor([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])[:, None, None]
