"""Pictures in rows and columns, with what was seen in them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import plotly.graph_objects as go
from torch import Tensor

from concept_probe.figures.theme import FONT, INK, as_written
from concept_probe.types import Picture


def image_grid(
    images: Sequence[bytes] | Tensor,
    captions: Sequence[str] = (),
    *,
    columns: int = 8,
    row_names: Sequence[str] = (),
    cell: int = 96,
    aspect: float = 1.0,
) -> go.Figure:
    """Pictures (PNG bytes, or float (n, 3, h, w) in 0..1), row by row, each with a caption below.

    `cell` is the width of one picture on screen in pixels, `aspect` its height for each pixel of that; `row_names` stand
    left of the rows.
    """
    pngs = [png(image) for image in images] if isinstance(images, Tensor) else list(images)
    if captions and len(captions) != len(pngs):
        raise ValueError(f"{len(captions)} captions for {len(pngs)} pictures")
    rows = max(1, -(-len(pngs) // columns))
    left = 12 + (max(map(len, row_names), default=0) * 8 if row_names else 0)
    line, gap, tall = 22, 8, round(cell * aspect)
    width, height = left + columns * (cell + gap), rows * (tall + line + gap) + gap
    figure = go.Figure()
    for i, data in enumerate(pngs):
        x, y = left + (i % columns) * (cell + gap), gap + (i // columns) * (tall + line + gap)
        figure.add_layout_image(
            source="data:image/png;base64," + base64.b64encode(data).decode(), xref="x", yref="y", x=x, y=-y,
            sizex=cell, sizey=tall, sizing="contain", layer="above",
        )  # fmt: skip
        if captions:
            figure.add_annotation(
                x=x + cell / 2, y=-(y + tall + line / 2), text=as_written(_fit(captions[i], cell)), showarrow=False,
                font={"size": 11, "color": INK}, hovertext=as_written(captions[i]),
            )  # fmt: skip
    for row, name in enumerate(row_names):
        figure.add_annotation(
            x=left - 8, y=-(gap + row * (tall + line + gap) + tall / 2), text=as_written(name), showarrow=False, xanchor="right",
            font={"size": 13, "color": INK},
        )  # fmt: skip
    hidden = {"visible": False, "fixedrange": True}
    figure.update_layout(
        width=width, height=height, margin={"l": 0, "r": 0, "t": 0, "b": 0}, font={"family": FONT},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", template="none",
        xaxis={**hidden, "range": [0, width]}, yaxis={**hidden, "range": [-height, 0]},
    )  # fmt: skip
    return figure


def picture_grid(pictures: Sequence[Picture], *, cell: int = 96) -> go.Figure:
    """Pictures of a report: one row per name (`before`, `after`, ...), one column per prompt and seed.

    Every row must show the same prompts and seeds, else ValueError: unpaired pictures can't be compared.
    """
    names = list(dict.fromkeys(p.name for p in pictures))
    columns = list(dict.fromkeys((p.prompt, p.seed) for p in pictures))
    table = {(p.name, p.prompt, p.seed): p for p in pictures}
    missing = [(n, *c) for n in names for c in columns if (n, *c) not in table]
    if missing:
        name, prompt, seed = missing[0]
        raise ValueError(
            f"no picture {name!r} of prompt {prompt!r} with seed {seed}; {len(missing)} pictures lack a pair"
        )
    ordered = [table[(n, *c)] for n in names for c in columns]
    return image_grid(
        [p.png for p in ordered], [p.seen for p in ordered], columns=max(1, len(columns)), row_names=names, cell=cell
    )


def png(image: Tensor) -> bytes:
    """One picture, float (3, h, w) in 0..1, as the bytes of a PNG file."""
    from PIL import Image  # only pictures that come as tensors need it

    array = (image.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    out = io.BytesIO()
    Image.fromarray(array).save(out, format="PNG")
    return out.getvalue()


def _fit(text: str, cell: int) -> str:
    limit = max(4, cell // 6)
    return text if len(text) <= limit else text[: limit - 1] + "…"
