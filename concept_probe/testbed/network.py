"""The network of the emoji recogniser."""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn


class Network(nn.Module):
    """A small convolutional network with one head for objects and one for styles; the last class of each is `none`."""

    def __init__(self, objects: int, styles: int, widths: tuple[int, ...] = (32, 64, 96, 160)) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 5, stride=2, padding=2),
            nn.GroupNorm(8, widths[0]),
            nn.SiLU(),
        ]
        for before, after in pairwise(widths):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                nn.GroupNorm(8, after),
                nn.SiLU(),
                nn.Conv2d(after, after, 3, padding=1),
                nn.GroupNorm(8, after),
                nn.SiLU(),
            ]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.object_head = nn.Linear(widths[-1] * 16, objects + 1)
        self.style_head = nn.Linear(widths[-1] * 16, styles + 1)

    def forward(self, x: Float[Tensor, "n 3 64 64"]) -> tuple[Float[Tensor, "n o"], Float[Tensor, "n s"]]:
        """`x` in -1..1 -> logits of objects and of styles."""
        h = self.body(x)
        return self.object_head(h), self.style_head(h)
