"""The rendered icons: every object in every style, 64 x 64 on white, and their augmentation."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

DATA = Path(__file__).parent / "data"
SIZE = 64


@cache
def icons() -> Float[Tensor, "style object 3 h w"]:
    """All icons as float32 in -1..1, in the order of `vocabulary.STYLES` and `vocabulary.objects()`."""
    atlas = np.asarray(Image.open(DATA / "icons.png").convert("RGB"))
    tiles = rearrange(atlas, "(object h) (style w) c -> style object c h w", h=SIZE, w=SIZE)
    return torch.from_numpy(tiles.copy()).float() / 127.5 - 1


def augment(
    images: Float[Tensor, "b 3 h w"],
    g: torch.Generator,
    *,
    shift: float = 0.06,
    scale: float = 0.1,
    turn: float = 0.0,
    flip: bool = True,
    colour: float = 0.0,
) -> Float[Tensor, "b 3 h w"]:
    """Mirror, move, resize and (if asked) turn and recolour each image; what moves in is white.

    `shift` and `scale` are fractions of the image, `turn` is in radians, `colour` mixes channels.
    """
    b = len(images)

    def draw():
        return torch.rand(b, generator=g) * 2 - 1

    angle, size = draw() * turn, 1 + draw() * scale
    mirror = torch.where(draw() < 0, -1.0, 1.0) if flip else torch.ones(b)
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    theta = torch.stack(
        [
            torch.stack([cos * mirror, -sin, draw() * shift * 2], -1),
            torch.stack([sin * mirror, cos, draw() * shift * 2], -1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    out = F.grid_sample(images - 1, grid, align_corners=False) + 1
    if colour:
        mix = torch.eye(3) + colour * torch.randn(b, 3, 3, generator=g)
        out = 1 - torch.einsum("bij,bjhw->bihw", mix, 1 - out)
    return out.clamp(-1, 1)
