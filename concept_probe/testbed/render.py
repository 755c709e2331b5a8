"""Make the icon atlas from the icon sets: needs `pip install concept-probe[render]` and four npm packages.

    npm install @iconify-json/noto @iconify-json/twemoji @iconify-json/fluent-emoji-flat \\
        @iconify-json/fluent-emoji-high-contrast
    python -m concept_probe.testbed.render node_modules

The atlas that ships with the package was made from versions 1.2.9, 1.2.5, 1.2.6 and 1.2.6 of them.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from concept_probe.testbed.icons import DATA, SIZE
from concept_probe.testbed.vocabulary import STYLES, objects

SETS = {"noto": "noto", "twemoji": "twemoji", "fluent": "fluent-emoji-flat", "contrast": "fluent-emoji-high-contrast"}


def icon_svg(icons: dict, name: str) -> str:
    """The drawing called `name` (or what it is an alias of) as an SVG document of SIZE x SIZE."""
    while name not in icons["icons"]:
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    width, height = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    body = icon["body"].replace("currentColor", "#000")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{SIZE}" height="{SIZE}" '
        f'viewBox="{box}" color="black">{body}</svg>'
    )


def atlas(modules: Path) -> Image.Image:
    """One row per object, one column per style."""
    import resvg_py  # an optional extra, needed only to make the atlas anew

    sets = {s: json.loads((modules / "@iconify-json" / SETS[s] / "icons.json").read_text()) for s in STYLES}
    rows = []
    for entry in objects():
        tiles = []
        for style in STYLES:
            png = resvg_py.svg_to_bytes(
                svg_string=icon_svg(sets[style], entry.icon), background="white", width=SIZE, height=SIZE
            )
            tiles.append(np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB")))
        rows.append(np.concatenate(tiles, axis=1))
    return Image.fromarray(np.concatenate(rows, axis=0))


if __name__ == "__main__":
    atlas(Path(sys.argv[1])).save(DATA / "icons.png", optimize=True)
