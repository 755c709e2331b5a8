"""Puts the Triton kernels on the device: block shapes, grids, outputs. No gradients here."""

from __future__ import annotations

import functools
import os
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from concept_probe.learn.kernels.order import Order

ENTRIES = 8
"""Rows that a program reads at a time."""
ROW_BYTES = 1024
"""Bytes of one row that a program handles at a time, at most."""
CELL = 256
"""Sorted entries whose sum is taken by itself where one feature fills them; see `triton_kernels.scatter_rows`."""


def available(tensor: Tensor) -> bool:
    """Whether the kernels can run on `tensor`: triton is installed, and a GPU or its interpreter is there for them.

    The interpreter needs TRITON_INTERPRET=1 in the environment before triton is first imported.
    """
    return (tensor.is_cuda or os.environ.get("TRITON_INTERPRET") == "1") and _installed()


@functools.cache
def _installed() -> bool:
    return find_spec("triton") is not None


def check_operands(name: str, first: Tensor, indices: Tensor, rows: Tensor) -> None:
    """Refuse operands that no kernel can take: `first` (n, ...) floats, `indices` (n, k), `rows` (?, d) floats."""
    if first.ndim != 2 or indices.ndim != 2 or rows.ndim != 2:
        found = ", ".join(str(tuple(t.shape)) for t in (first, indices, rows))
        raise ValueError(f"{name}: operands are {found}; each must have two axes, so reshape leading axes to one")
    if first.shape[0] != indices.shape[0]:
        raise ValueError(f"{name}: {first.shape[0]} rows of floats, {indices.shape[0]} of indices; they must agree")
    if indices.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name}: indices are {indices.dtype}; they must be int64 or int32")
    if not (first.is_floating_point() and rows.is_floating_point()):
        raise ValueError(f"{name}: operands are {first.dtype} and {rows.dtype}; both must be floats")
    if not first.device == indices.device == rows.device:
        raise ValueError(f"{name}: operands are on {first.device}, {indices.device}, {rows.device}; move them together")
    if not available(rows):
        raise RuntimeError(
            f"{name}: no Triton kernel can run on {rows.device}; install triton and use a CUDA device, set "
            f"TRITON_INTERPRET=1 before it is imported, or use the torch path"
        )


def check_range(name: str, indices: Tensor, features: int) -> None:
    """IndexError for a feature that does not exist; on a GPU this would wait for the device, and is left out."""
    if not indices.is_cuda and indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < features:
        found = f"{int(indices.min())} .. {int(indices.max())}"
        raise IndexError(f"{name}: indices reach from {found}; there are {features} features, 0 .. {features - 1}")


def weighted_rows(values: Tensor, indices: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """values, indices (n, k), rows (f, d) -> (n, d) of `dtype`."""
    values, indices, rows = _contiguous(values, indices, rows)
    (n, k), (f, d), width = values.shape, rows.shape, _width(rows)
    out = rows.new_empty((n, d), dtype=dtype)
    if out.numel():
        kernels, acc = _kernels(), _sums(values, rows)
        with _device_of(rows):
            kernels.weighted_rows[(n, -(-d // width))](values, indices, rows, out, k, f, d, **_shape(acc, width))
    return out


def row_products(x: Tensor, indices: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """x (n, d), indices (n, k), rows (f, d) -> (n, k) of `dtype`."""
    x, indices, rows = _contiguous(x, indices, rows)
    (n, k), (f, d), width = indices.shape, rows.shape, _width(rows)
    out = x.new_empty((n, k), dtype=dtype)
    if out.numel():
        kernels, acc = _kernels(), _sums(x, rows)
        with _device_of(rows):
            kernels.row_products[(n, -(-k // ENTRIES))](x, indices, rows, out, k, f, d, **_shape(acc, width))
    return out


def scatter_rows(values: Tensor, order: Order, x: Tensor, dtype: torch.dtype) -> Tensor:
    """values (n, k), x (n, d) -> (features, d) of `dtype`."""
    values, x = _contiguous(values, x)
    f, d, acc, width = order.features, x.shape[1], _sums(values, x), _width(x)
    out = x.new_empty((f, d), dtype=dtype)
    if values.numel() == 0 or out.numel() == 0:
        return out.zero_()
    kernels, blocks = _kernels(), -(-d // width)
    cells = x.new_empty((values.numel() // CELL, d), dtype=acc)
    shape = {**_shape(acc, width), "CELL": CELL}
    with _device_of(x):
        if len(cells):
            firsts = torch.arange(len(cells), dtype=order.offsets.dtype, device=x.device) * CELL
            ends = torch.searchsorted(order.offsets, firsts, right=True, out_int32=True)
            kernels.cell_sums[(len(cells), blocks)](
                values, x, order.entries, order.rows, order.offsets, ends, cells, f, d, **shape
            )
        kernels.scatter_rows[(f, blocks)](values, x, order.entries, order.rows, order.offsets, cells, out, d, **shape)
    return out


def decode_error(values: Tensor, indices: Tensor, rows: Tensor, bias: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """values, indices (n, k), rows (f, d), bias (d,), x (n, d) -> error (n, d) like x, squares (n,)."""
    values, indices, rows, bias, x = _contiguous(values, indices, rows, bias, x)
    (n, k), (f, d), acc = values.shape, rows.shape, _sums(values, rows, bias, x)
    error, squares = torch.empty_like(x), x.new_empty(n, dtype=acc)
    if n:
        kernels = _kernels()
        with _device_of(rows):
            kernels.decode_error[(n,)](
                values, indices, rows, bias, x, error, squares, k, f, d, **_shape(acc, _width(rows))
            )
    return error, squares


def _shape(acc: torch.dtype, width: int) -> dict[str, Any]:
    # Products and sums are fused into one rounding; from 3.10 on Triton does so only where it is asked to.
    return {"ACC": _kernels().SUMS[acc], "ENTRIES": ENTRIES, "WIDTH": width, "enable_fp_fusion": True}


def _kernels():
    from concept_probe.learn.kernels import triton_kernels

    return triton_kernels


def _contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.contiguous() for t in tensors)


def _sums(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def _width(rows: Tensor) -> int:
    """Columns per program: a power of two, no more than BLOCK_BYTES nor than the width asks for."""
    asked = 1 << max(4, (rows.shape[1] - 1).bit_length())
    return min(asked, ROW_BYTES // rows.element_size())


def _device_of(tensor: Tensor) -> AbstractContextManager[object]:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
