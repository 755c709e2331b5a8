"""Sparse sums of rows on a GPU, with gradients: the decoder of a sparse autoencoder and what training asks of it.

    weighted_rows(values, indices, rows)          (n, k), (n, k), (f, d) -> (n, d)
    row_products(x, indices, rows)                (n, d), (n, k), (f, d) -> (n, k)
    scatter_rows(values, order, x)                (n, k),         (n, d) -> (f, d)
    decode_error(values, indices, rows, bias, x)  the error of the first against x, and its squares, in one pass

The gradients of each of the first three are the other two, so they can be differentiated any number of times.
Entries of a row that name one feature twice add up. Sums are in float32, or float64 where an operand is
float64. Equal input gives equal bits. Operands that are not contiguous are copied first.

Triton is imported on the first launch; `available` says whether that can succeed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from concept_probe.learn.kernels import triton_launch as launch
from concept_probe.learn.kernels.order import Order, by_feature
from concept_probe.learn.kernels.triton_launch import available

__all__ = ["available", "decode_error", "row_products", "scatter_rows", "weighted_rows"]


def weighted_rows(values: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """Sum of `rows` (f, d) picked by `indices` (n, k) and weighted by `values` (n, k) -> (n, d), dtype of `rows`.

    An index outside 0 .. f - 1 gives a row of NaN on a GPU, IndexError elsewhere. ValueError for operands that do
    not fit, RuntimeError where no kernel can run.
    """
    _check_codes("weighted_rows", values, indices)
    launch.check_operands("weighted_rows", values, indices, rows)
    launch.check_range("weighted_rows", indices, rows.shape[0])
    return _WeightedRows.apply(values, indices, rows, rows.dtype)  # pyright: ignore[reportReturnType]


def row_products(x: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """Inner products of x (n, d) with the `rows` (f, d) that `indices` (n, k) pick -> (n, k), dtype of `x`.

    An index outside 0 .. f - 1 gives NaN on a GPU, IndexError elsewhere; other errors as in `weighted_rows`.
    """
    launch.check_operands("row_products", x, indices, rows)
    if x.shape[1] != rows.shape[1]:
        raise ValueError(f"row_products: x is {tuple(x.shape)}, rows {tuple(rows.shape)}; their widths d must agree")
    launch.check_range("row_products", indices, rows.shape[0])
    return _RowProducts.apply(x, indices, rows, x.dtype)  # pyright: ignore[reportReturnType]


def scatter_rows(values: Tensor, order: Order, x: Tensor) -> Tensor:
    """For each feature the sum of x (n, d) over its entries, weighted by `values` (n, k) -> (f, d), dtype of x.

    A feature without entries gets zeros; entries that `order` gives to no feature are left out. Errors as in
    `weighted_rows`.
    """
    if order.entries.numel() != values.numel():
        found = f"values are {tuple(values.shape)}, the order has {order.entries.numel()} entries"
        raise ValueError(f"scatter_rows: {found}; make it of the indices that belong to these values")
    launch.check_operands("scatter_rows", x, order.entries.view(values.shape), values)
    return _ScatterRows.apply(values, order, x, x.dtype)  # pyright: ignore[reportReturnType]


def decode_error(values: Tensor, indices: Tensor, rows: Tensor, bias: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """x - (weighted_rows(values, indices, rows) + bias), and its squared norm per row, without writing x̂.

    `bias` (d,), x (n, d) -> error (n, d) in the dtype of x, squares (n,) in float32 or float64. Both are
    differentiable in values, rows, bias and x. Squares are taken before the error is rounded to its dtype.
    Errors as in `weighted_rows`.
    """
    _check_codes("decode_error", values, indices)
    launch.check_operands("decode_error", values, indices, rows)
    shape = (values.shape[0], rows.shape[1])
    if tuple(x.shape) != shape or tuple(bias.shape) != shape[1:]:
        found = f"x is {tuple(x.shape)}, bias {tuple(bias.shape)}"
        raise ValueError(f"decode_error: {found}; values and rows ask for x {shape} and bias {shape[1:]}")
    launch.check_range("decode_error", indices, rows.shape[0])
    return _DecodeError.apply(values, indices, rows, bias, x)  # pyright: ignore[reportReturnType]


class _WeightedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, indices: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(values, indices, rows)
        return launch.weighted_rows(values, indices, rows, dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        values, indices, rows = ctx.saved_tensors
        to_values = to_rows = None
        if ctx.needs_input_grad[0]:
            to_values = _RowProducts.apply(grad, indices, rows, values.dtype)
        if ctx.needs_input_grad[2]:
            to_rows = _ScatterRows.apply(values, by_feature(indices, rows.shape[0]), grad, rows.dtype)
        return to_values, None, to_rows, None


class _RowProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, indices: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(x, indices, rows)
        return launch.row_products(x, indices, rows, dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, indices, rows = ctx.saved_tensors
        to_x = to_rows = None
        if ctx.needs_input_grad[0]:
            to_x = _WeightedRows.apply(grad, indices, rows, x.dtype)
        if ctx.needs_input_grad[2]:
            to_rows = _ScatterRows.apply(grad, by_feature(indices, rows.shape[0]), x, rows.dtype)
        return to_x, None, to_rows, None


class _ScatterRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, order: Order, x: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(values, x)
        ctx.order = order
        return launch.scatter_rows(values, order, x, dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        values, x = ctx.saved_tensors
        indices = _features_of(ctx.order, values)
        to_values = to_x = None
        if ctx.needs_input_grad[0]:
            to_values = _RowProducts.apply(x, indices, grad, values.dtype)
        if ctx.needs_input_grad[2]:
            to_x = _WeightedRows.apply(values, indices, grad, x.dtype)
        return to_values, None, to_x, None


class _DecodeError(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, indices: Tensor, rows: Tensor, bias: Tensor, x: Tensor):
        error, squares = launch.decode_error(values, indices, rows, bias, x)
        ctx.save_for_backward(values, indices, rows, error)
        ctx.bias_dtype = bias.dtype
        ctx.set_materialize_grads(False)
        return error, squares

    @staticmethod
    def backward(ctx, to_error: Tensor | None, to_squares: Tensor | None):
        values, indices, rows, error = ctx.saved_tensors
        grad = to_error
        if to_squares is not None:
            square = 2 * to_squares[:, None] * error
            grad = square if grad is None else grad + square
        if grad is None:
            return (None,) * 5
        to_values = to_rows = to_bias = to_x = None
        if ctx.needs_input_grad[0]:
            to_values = _RowProducts.apply(-grad, indices, rows, values.dtype)
        if ctx.needs_input_grad[2]:
            to_rows = _ScatterRows.apply(values, by_feature(indices, rows.shape[0]), -grad, rows.dtype)
        if ctx.needs_input_grad[3]:
            to_bias = -grad.sum(0).to(ctx.bias_dtype)
        if ctx.needs_input_grad[4]:
            to_x = grad.to(error.dtype)
        return to_values, None, to_rows, to_bias, to_x


def _check_codes(name: str, values: Tensor, indices: Tensor) -> None:
    if values.shape != indices.shape:
        found = f"values are {tuple(values.shape)}, indices {tuple(indices.shape)}"
        raise ValueError(f"{name}: {found}; they must have one shape (n, k)")


def _features_of(order: Order, values: Tensor) -> Tensor:
    """The indices (n, k) that `order` was made of; f where an entry names no feature."""
    places = torch.arange(values.numel(), dtype=order.offsets.dtype, device=values.device)
    features = torch.searchsorted(order.offsets, places, right=True, out_int32=True) - 1
    return torch.empty_like(features).scatter_(0, order.entries, features).view(values.shape)
