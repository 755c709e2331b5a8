"""Which features are strongest in each row, without ever holding all pre-activations of all rows.

A bfloat16 product is several times as fast where the hardware has one, and picks candidates; their exact values are
then computed in full precision, and a row keeps its choice only if no feature outside its candidates can have been
stronger. Rows in doubt are searched again with twice the candidates, and what is still in doubt in full precision.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from concept_probe.learn.kernels import row_products
from concept_probe.learn.kernels.largest import row_topk
from concept_probe.learn.kernels.parts import PARTS, in_parts

Precision = Literal["full", "bfloat16"]
CPU_BLOCK_BYTES = 6 << 20
"""Size of the block of pre-activations that a processor holds at a time: it should stay in the cache."""
BLOCK_ROWS = 256
"""Fewest rows of a block, below which a product no longer runs at full speed."""
CUDA_BLOCK_BYTES = 1 << 30
ROUNDING = torch.finfo(torch.bfloat16).eps / 2
SLACK = 1.25
"""Certificates allow for errors of a bfloat16 product so many times the largest that the batch has shown."""
DOUBT = 0.02
"""Share of rows in doubt above which more candidates cost less than searching again."""
WIDEST = 8
"""Rows in doubt are searched again with twice the candidates, up to so many times k; then in full precision."""


@dataclass
class CandidateCount:
    """How many features a bfloat16 product picks for the k that may fire: the fewest that leave hardly a row in doubt.

    As training goes on, the features below the k-th come closer to it. Results don't depend on the number, only time.
    """

    ratio: float = 1.5

    def count(self, k: int) -> int:
        return max(k + 8, round(self.ratio * k))

    def heed(self, doubt: float) -> None:
        """Pick more where a share `doubt` of the rows had to be searched again; else, slowly, fewer."""
        self.ratio = min(WIDEST / 2, 1.25 * self.ratio) if doubt > DOUBT else max(1.5, 0.99 * self.ratio)


def largest_preactivations(
    u: Tensor, rows: Tensor, bias: Tensor, k: int, precision: Precision, candidates: CandidateCount | None = None
) -> tuple[Tensor, Tensor]:
    """The k largest of u rowsᵀ + bias per row: values (n, k) in the dtype of u, falling, and int32 indices (n, k).

    u (n, d), rows (f, d), bias (f,). Both precisions give the same features up to the rounding of full precision.
    """
    k = min(k, rows.shape[0])
    candidates = candidates or CandidateCount()
    m = candidates.count(k)
    if precision == "full" or m >= rows.shape[0]:
        return _full(u, rows, bias, k)
    short, error = rows.bfloat16(), u.new_zeros(())
    values, indices = u.new_empty(len(u), k), torch.empty(len(u), k, dtype=torch.int32, device=u.device)
    doubtful = torch.arange(len(u), device=u.device)
    while len(doubtful) and m < rows.shape[0] and m <= WIDEST * k:
        here = u if len(doubtful) == len(u) else u[doubtful]
        approximate, picked = _blocks(here.bfloat16(), short, bias.bfloat16(), m)
        exact = row_products(here, picked, rows) + bias[picked]
        best, places = exact.topk(k, dim=1)
        error = torch.maximum(error, product_error(here, approximate.to(u.dtype), exact))
        sure = certified(here, approximate.to(u.dtype), best[:, -1], error)
        values[doubtful], indices[doubtful] = best, picked.gather(1, places)
        doubtful = doubtful[~sure]
        if len(here) == len(u):
            candidates.heed(len(doubtful) / len(u))
        m *= 2
    if len(doubtful):
        values[doubtful], indices[doubtful] = _full(u[doubtful], rows, bias, k)
    return values, indices


def product_error(u: Tensor, approximate: Tensor, exact: Tensor) -> Tensor:
    """() largest error of a bfloat16 product per unit of a row's norm, on candidates (n, m) of rows u (n, d).

    What rounding a product to bfloat16 can hide is known and is not counted.
    """
    norm = torch.linalg.vector_norm(u, dim=1).clamp_min(torch.finfo(u.dtype).tiny)
    beyond = ((exact - approximate).abs() - ROUNDING * approximate.abs()).clamp_min(0).amax(1)
    return (beyond / norm).max() if len(u) else u.new_zeros(())


def certified(u: Tensor, approximate: Tensor, least: Tensor, error: Tensor) -> Tensor:
    """(n,) bool: no feature outside a row's candidates can exceed `least` (n,), or 0, below which none fires.

    A feature outside had at most the smallest of the candidates' `approximate` values (n, m). To that come what
    rounding can hide, and `SLACK` times the largest `error` () per unit of the row's norm that the batch has shown.
    """
    ceiling = approximate.amin(1)
    slack = SLACK * error * torch.linalg.vector_norm(u, dim=1)
    return ceiling + ROUNDING * ceiling.abs() + slack <= least.clamp_min(0)


def _full(u: Tensor, rows: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
    _, indices = _blocks(u, rows, bias, k)
    # One way of computing values, however features were picked: a product's rounding depends on its shape.
    values, places = (row_products(u, indices, rows) + bias[indices]).sort(dim=1, descending=True)
    return values, indices.gather(1, places)


def _blocks(u: Tensor, rows: Tensor, bias: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """The m largest of u rowsᵀ + bias per row, in no order, one block of rows after the other."""
    f = rows.shape[0]
    size = CUDA_BLOCK_BYTES if u.is_cuda else CPU_BLOCK_BYTES
    step = max(BLOCK_ROWS, size // (f * u.element_size()))
    values, indices = u.new_empty(len(u), m), torch.empty(len(u), m, dtype=torch.int32, device=u.device)

    def some(part: slice) -> None:
        for start in range(part.start, part.stop, step):
            here = slice(start, min(start + step, part.stop))
            values[here], indices[here] = row_topk(torch.addmm(bias, u[here], rows.mT), m)

    in_parts(len(u), max(1, min(step, -(-len(u) // PARTS))), some, u.device)
    return values, indices


@functools.cache
def fastest_precision(device: torch.device, d: int, features: int) -> Precision:
    """`bfloat16` where its product saves more than the exact recomputation costs, by a short measurement."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "full"
    x, rows = torch.randn(256, d), torch.randn(min(features, 4096), d)
    times = {dtype: _seconds(x.to(dtype), rows.to(dtype)) for dtype in (torch.float32, torch.bfloat16)}
    return "bfloat16" if times[torch.bfloat16] < 0.6 * times[torch.float32] else "full"


def _seconds(x: Tensor, rows: Tensor) -> float:
    torch.mm(x, rows.mT)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        torch.mm(x, rows.mT)
        best = min(best, time.perf_counter() - start)
    return best
