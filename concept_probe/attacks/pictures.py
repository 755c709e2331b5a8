"""Pictures of a report: PNG bytes with what was asked and what was seen."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from concept_probe.types import Picture, Trial

LARGEST = 192
"""Pictures are shrunk to at most this many pixels a side: a report holds dozens of them."""


def thumbnail(image: Float[Tensor, "3 h w"]) -> bytes:
    """An image in 0..1 as PNG, at most LARGEST pixels a side."""
    pixels = (image.detach().float().nan_to_num().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).to("cpu").numpy()
    picture = Image.fromarray(np.ascontiguousarray(pixels), "RGB" if pixels.shape[-1] == 3 else "L")
    picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def report_pictures(
    name: str, kind: str, images: Float[Tensor, "n 3 h w"], trials: Sequence[Trial]
) -> tuple[Picture, ...]:
    """One `Picture` per image; `trials[i]` says what image i answers and what was seen in it."""
    return tuple(
        Picture(name, t.query.prompt.text, kind, t.query.seed, t.seen, thumbnail(image))
        for image, t in zip(images, trials, strict=True)
    )
