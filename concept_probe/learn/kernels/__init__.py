"""The three products that a k-sparse autoencoder is made of, each at the cost of k features per row instead of f.

Shapes: values and indices (n, k), rows (f, d), x (n, d). An index may occur twice in a row; what it stands for adds up.
The three are closed under differentiation: the gradients of each are the other two. Triton runs them where it can,
torch everywhere else; both are tested against the dense formula in float64.
"""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from concept_probe.learn.kernels import torch_ops, triton_ops
from concept_probe.learn.kernels.order import Order, by_feature

__all__ = ["Order", "by_feature", "row_products", "scatter_rows", "weighted_rows"]


def _home(x: Tensor) -> ModuleType:
    return triton_ops if triton_ops.available(x) else torch_ops


def weighted_rows(values: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """(n, d): out_i = Σ_j values_ij rows[indices_ij], the decoder. Differentiable in `values` and `rows`."""
    return _home(rows).weighted_rows(values, indices, rows)


def row_products(x: Tensor, indices: Tensor, rows: Tensor, order: Order | None = None) -> Tensor:
    """(n, k): out_ij = ⟨x_i, rows[indices_ij]⟩, the gradient of a decoder's values and the pre-activations of a few.

    `order` is that of `indices`, where it is known already: a processor walks along it.
    """
    home = _home(rows)
    if home is torch_ops:
        return torch_ops.row_products(x, indices, rows, order)
    return home.row_products(x, indices, rows)


def scatter_rows(values: Tensor, order: Order, x: Tensor, out: Tensor | None = None) -> Tensor:
    """(f, d): out_f = Σ values_ij x_i over the entries with indices_ij = f, the gradient of either weight matrix.

    No atomics: entries are summed in the order of `order`, so that equal input gives equal bits. The sum is written
    into `out` where that is faster than new memory; what is returned counts.
    """
    home = _home(x)
    if home is torch_ops:
        return torch_ops.scatter_rows(values, order, x, out)
    return home.scatter_rows(values, order, x)
