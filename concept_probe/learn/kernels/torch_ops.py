"""The three products in torch alone, chosen for what is fast on a processor."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_probe.learn.kernels.order import Order, by_feature
from concept_probe.learn.kernels.parts import in_parts, part_size

GATHERED = 1 << 26
"""Numbers that a gather of rows may hold at once."""


def weighted_rows(values: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    def some(part: slice) -> Tensor:
        # With 32-bit indices the bags run through a vectorised kernel that is five times as fast.
        weights = values[part].to(rows.dtype)
        return F.embedding_bag(indices[part].int(), rows, per_sample_weights=weights, mode="sum")

    if _differentiated(values, rows):
        return some(slice(None))
    n = len(values)
    return _joined(in_parts(n, part_size(n, rows.shape[1]), some, rows.device), rows.new_empty(0, rows.shape[1]))


def row_products(x: Tensor, indices: Tensor, rows: Tensor, order: Order | None = None) -> Tensor:
    if indices.shape[1] <= rows.shape[0] and _samples(x, rows):
        order = order or by_feature(indices, rows.shape[0])
        out = x.new_zeros(indices.numel())

        def some(part: slice) -> None:
            here = order.part(part)
            out[here.entries] = entry_products(x, here, rows[part])

        if len(out):
            in_parts(rows.shape[0], part_size(rows.shape[0], rows.shape[1]), some, rows.device)
        return out.view(indices.shape)
    step = max(1, GATHERED // max(1, indices.shape[1] * rows.shape[1]))
    parts = (
        torch.einsum("nd,nkd->nk", x[start : start + step], rows[indices[start : start + step].long()])
        for start in range(0, x.shape[0], step)
    )
    return torch.cat([x.new_empty(0, indices.shape[1]), *parts])


def entry_products(x: Tensor, order: Order, rows: Tensor) -> Tensor:
    """rows xᵀ where there are entries: feature by feature, so that each of `rows` is read once. In their order."""
    if not _samples(x, rows):
        features = torch.repeat_interleave(torch.arange(order.features, device=rows.device), order.counts)
        return row_products(x[order.rows.long()], features[:, None], rows)[:, 0]
    if not len(order.rows):
        return x.new_zeros(0)
    _accept_sparse()
    size, blank = (rows.shape[0], x.shape[0]), x.new_zeros(len(order.rows))
    mask = torch.sparse_csr_tensor(order.offsets, order.rows, blank, size, check_invariants=False)
    return torch.sparse.sampled_addmm(mask, rows.contiguous(), x.mT, beta=0.0).values()


def _samples(x: Tensor, rows: Tensor) -> bool:
    """Whether torch can sample a product of these on a processor."""
    plain = rows.dtype == x.dtype and rows.dtype in (torch.float32, torch.float64)
    return rows.device.type == "cpu" and plain and not _differentiated(x, rows)


def _differentiated(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


@functools.cache
def _accept_sparse() -> None:
    """torch says once per process that its CSR tensors are in beta; the tests here compare them with dense products."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 1], [0], [0.0], (1, 1), check_invariants=False)


def scatter_rows(values: Tensor, order: Order, x: Tensor, out: Tensor | None = None) -> Tensor:
    weights = values.reshape(-1)[order.entries].to(x.dtype)
    if x.device.type != "cpu" or _differentiated(values, x):
        return entry_sums(weights, order, x)
    # Large tensors come in pages that must be cleared first, which takes longer than the sums: so they are made in
    # parts that stay in the cache, and copied to memory that is there already.
    whole = x.new_empty(order.features, x.shape[1]) if out is None else out

    def some(part: slice) -> None:
        entries = slice(int(order.offsets[part.start]), int(order.offsets[part.stop]))
        whole[part] = entry_sums(weights[entries], order.part(part), x)

    in_parts(order.features, part_size(order.features, x.shape[1]), some, x.device)
    return whole


def entry_sums(weights: Tensor, order: Order, x: Tensor) -> Tensor:
    """(f, d): per feature the sum of its entries' rows of x, with weights (entries,) in their order."""
    return F.embedding_bag(
        order.rows, x, offsets=order.offsets, per_sample_weights=weights, mode="sum", include_last_offset=True
    )


def _joined(parts: Sequence[Tensor], empty: Tensor) -> Tensor:
    return torch.cat([empty, *parts]) if len(parts) != 1 else parts[0]
