"""Triton kernels of the sparse autoencoder. Imported only where they run: importing this file needs triton.

All tensors are contiguous. ACC is the type of sums; a program handles WIDTH columns, and reads ENTRIES rows at
a time so that many loads are under way at once. Nothing is summed with atomics: each output element has one
program that owns it and adds in a fixed order, so that the same input gives the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

SUMS = {torch.float32: tl.float32, torch.float64: tl.float64}
"""Type of sums, in torch and in Triton."""


@triton.jit
def row_start(index, width):
    """Offset of row `index`: in 64 bits, since f * d passes 2^31 at, say, 2^20 features of width 2,048."""
    return index.to(tl.int64) * width


@triton.jit
def picked_sum(
    values, indices, rows, row, column, inside, k, features, d,
    ACC: tl.constexpr, ENTRIES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Sum over the k entries of `row` of value * rows[index], at the columns `column` -> (WIDTH,).

    An index outside the features reads no memory and makes the sum NaN.
    """
    total = tl.zeros((ENTRIES, WIDTH), dtype=ACC)
    for first in range(0, k, ENTRIES):
        entry = first + tl.arange(0, ENTRIES)
        listed = entry < k
        index = tl.load(indices + row_start(row, k) + entry, mask=listed, other=0)
        weight = tl.load(values + row_start(row, k) + entry, mask=listed, other=0).to(ACC)
        known = (index >= 0) & (index < features)
        weight = tl.where(known, weight, float("nan"))
        place = row_start(index, d)[:, None] + column[None, :]
        tile = tl.load(rows + place, mask=(listed & known)[:, None] & inside[None, :], other=0).to(ACC)
        total += weight[:, None] * tile
    return tl.sum(total, 0)


@triton.jit
def weighted_rows(
    values, indices, rows, out, k, features, d,
    ACC: tl.constexpr, ENTRIES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Program (i, block): out[i, block] = sum over j of values[i, j] * rows[indices[i, j], block]."""
    row = tl.program_id(0)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < d
    total = picked_sum(values, indices, rows, row, column, inside, k, features, d, ACC, ENTRIES, WIDTH)
    tl.store(out + row_start(row, d) + column, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def decode_error(
    values, indices, rows, bias, x, error, squares, k, features, d,
    ACC: tl.constexpr, ENTRIES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Program i: error[i] = x[i] - bias - weighted rows, and squares[i] = |error[i]|^2 before it is rounded."""
    row = tl.program_id(0)
    square = tl.zeros((WIDTH,), dtype=ACC)
    for left in range(0, d, WIDTH):
        column = left + tl.arange(0, WIDTH)
        inside = column < d
        target = tl.load(x + row_start(row, d) + column, mask=inside, other=0).to(ACC)
        target -= tl.load(bias + column, mask=inside, other=0).to(ACC)
        total = picked_sum(values, indices, rows, row, column, inside, k, features, d, ACC, ENTRIES, WIDTH)
        rest = tl.where(inside, target - total, 0)
        square += rest * rest
        tl.store(error + row_start(row, d) + column, rest.to(error.dtype.element_ty), mask=inside)
    tl.store(squares + row, tl.sum(square, 0))


@triton.jit
def row_products(
    x, indices, rows, out, k, features, d,
    ACC: tl.constexpr, ENTRIES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Program (i, block of entries): out[i, j] = <x[i], rows[indices[i, j]]>; NaN for an index outside the features."""
    row = tl.program_id(0)
    entry = tl.program_id(1) * ENTRIES + tl.arange(0, ENTRIES)
    listed = entry < k
    index = tl.load(indices + row_start(row, k) + entry, mask=listed, other=0)
    known = (index >= 0) & (index < features)
    total = tl.zeros((ENTRIES, WIDTH), dtype=ACC)
    for left in range(0, d, WIDTH):
        column = left + tl.arange(0, WIDTH)
        inside = column < d
        one = tl.load(x + row_start(row, d) + column, mask=inside, other=0).to(ACC)
        place = row_start(index, d)[:, None] + column[None, :]
        tile = tl.load(rows + place, mask=(listed & known)[:, None] & inside[None, :], other=0).to(ACC)
        total += one[None, :] * tile
    product = tl.where(known, tl.sum(total, 1), float("nan"))
    tl.store(out + row_start(row, k) + entry, product.to(out.dtype.element_ty), mask=listed)


@triton.jit
def run_sum(
    values, x, entries, owners, first, last, column, inside, d,
    ACC: tl.constexpr, ENTRIES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Sum of values[entries[p]] * x[owners[p]] over the sorted places p = first .. last - 1 -> (ENTRIES, WIDTH)."""
    total = tl.zeros((ENTRIES, WIDTH), dtype=ACC)
    for start in range(first, last, ENTRIES):
        place = start + tl.arange(0, ENTRIES)
        listed = place < last
        weight = tl.load(values + tl.load(entries + place, mask=listed, other=0), mask=listed, other=0).to(ACC)
        row = tl.load(owners + place, mask=listed, other=0)
        where = row_start(row, d)[:, None] + column[None, :]
        tile = tl.load(x + where, mask=listed[:, None] & inside[None, :], other=0).to(ACC)
        total += weight[:, None] * tile
    return total


@triton.jit
def cell_sums(
    values, x, entries, owners, offsets, ends, cells, features, d,
    ACC: tl.constexpr, ENTRIES: tl.constexpr, WIDTH: tl.constexpr, CELL: tl.constexpr,
):  # fmt: skip
    """Program (c, block): sum of the sorted places c * CELL .. (c + 1) * CELL - 1, if one feature fills them all.

    offsets[ends[c]] is where the feature of the cell's first place ends. Other cells are left unwritten:
    `scatter_rows` does not read them.
    """
    cell = tl.program_id(0)
    first = row_start(cell, CELL)
    last = first + CELL
    end = tl.load(ends + cell)
    if tl.load(offsets + end, mask=end <= features, other=0) >= last:  # end is beyond where no feature is named
        column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
        inside = column < d
        total = run_sum(values, x, entries, owners, first, last, column, inside, d, ACC, ENTRIES, WIDTH)
        tl.store(cells + row_start(cell, d) + column, tl.sum(total, 0), mask=inside)


@triton.jit
def scatter_rows(
    values, x, entries, owners, offsets, cells, out, d,
    ACC: tl.constexpr, ENTRIES: tl.constexpr, WIDTH: tl.constexpr, CELL: tl.constexpr,
):  # fmt: skip
    """Program (f, block): out[f, block] = sum of values[entries[p]] * x[owners[p], block] over the places p of f.

    The run of a feature is its head up to the next whole cell, whole cells, and a tail. Whole cells were summed
    by `cell_sums`, so no program walks more than 2 * CELL entries, however often its feature fires.
    """
    feature = tl.program_id(0)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < d
    first = tl.load(offsets + feature).to(tl.int64)
    last = tl.load(offsets + feature + 1).to(tl.int64)
    whole = (first + CELL - 1) // CELL
    end = last // CELL
    head = tl.minimum(whole * CELL, last)
    tail = tl.maximum(end * CELL, head)
    total = run_sum(values, x, entries, owners, first, head, column, inside, d, ACC, ENTRIES, WIDTH)
    for start in range(whole, end, ENTRIES):
        cell = start + tl.arange(0, ENTRIES)
        place = row_start(cell, d)[:, None] + column[None, :]
        total += tl.load(cells + place, mask=(cell < end)[:, None] & inside[None, :], other=0)
    total += run_sum(values, x, entries, owners, tail, last, column, inside, d, ACC, ENTRIES, WIDTH)
    tl.store(out + row_start(feature, d) + column, tl.sum(total, 0).to(out.dtype.element_ty), mask=inside)
