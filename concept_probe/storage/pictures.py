"""Pictures that others bring."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from concept_probe.storage.errors import CorruptFile, MissingFile

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 2**26
"""67 million, 8192 x 8192: more are no picture of a concept, and a small file can claim any number of them."""


def read_picture(path: Path, mend: str) -> Image:
    """An RGB picture from a file of any kind that Pillow reads.

    MissingFile; CorruptFile, ending in `mend`, where it is no picture, cut short, or of more than `MOST_PIXELS`, by
    what its header says: nothing of such a size is decoded.
    """
    from PIL import Image

    if not path.is_file():
        raise MissingFile(f"picture {path} not found; {mend}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below says more
            with Image.open(path) as picture:
                width, height = picture.size
                if width * height <= MOST_PIXELS:
                    return picture.convert("RGB")
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        raise CorruptFile(path, f"a picture of more than {MOST_PIXELS:,} pixels ({error})", mend) from None
    except Exception as error:  # a damaged picture fails wherever its decoder stumbles
        raise CorruptFile(path, f"not a whole picture ({error})", mend) from None
    raise CorruptFile(path, f"a picture of more than {MOST_PIXELS:,} pixels, {width} x {height}", mend)
