"""The m largest of each row.

torch's topk compares values and carries their places along. On a processor a value and its place are put into one
whole number instead, and numpy's partition, which is vectorised, separates the largest of those.
"""

from __future__ import annotations

import torch
from torch import Tensor

SIZES = (16, 8, 4)
"""A long row is searched by the maxima of interleaved groups of such a size first."""
WHOLE = {torch.bfloat16: (torch.int16, torch.int32, 16), torch.float32: (torch.int32, torch.int64, 32)}
"""Floats to whole numbers of their size, whole numbers of twice the size, and bits of the former."""


def row_topk(x: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """As x.topk(m) of x (n, f): values (n, m) and places (n, m), in no order; among equals any.

    The m largest lie in the m groups of largest maximum, and finding those is a fraction of a whole search.
    """
    n, f = x.shape
    if x.device.type != "cpu" or x.dtype not in WHOLE or m >= f:
        return x.topk(m, dim=1, sorted=False)
    size = next((s for s in SIZES if f % s == 0 and f >= 4 * s * m), None)
    if size is None:
        return _partition(x, m)
    grid = x.view(n, size, f // size)
    _, groups = row_topk(grid.amax(1), m)
    inside, places = _partition(grid.gather(2, groups[:, None].expand(-1, size, -1)).reshape(n, size * m), m)
    return inside, (places // m) * (f // size) + groups.gather(1, places % m)


def _partition(x: Tensor, m: int) -> tuple[Tensor, Tensor]:
    f = x.shape[1]
    whole, wide, bits = WHOLE[x.dtype]
    if f > 1 << bits:
        return x.topk(m, dim=1, sorted=False)
    keys = (_ordered(x.contiguous().view(whole)).to(wide) << bits) + torch.arange(f, dtype=wide)
    keys.numpy().partition(f - m, axis=1)
    keys = keys[:, f - m :]
    places = keys & ((1 << bits) - 1)
    return _ordered((keys >> bits).to(whole)).view(x.dtype), places.long()


def _ordered(bits: Tensor) -> Tensor:
    """The bits of floats as whole numbers in the order of the floats, and back: negative ones count downwards."""
    return bits ^ ((bits >> 31) & torch.iinfo(bits.dtype).max)
