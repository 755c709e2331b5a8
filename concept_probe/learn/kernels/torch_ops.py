"""The three products in torch alone, chosen for what is fast on a processor."""

from __future__ import annotations

import functools
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_probe.learn.kernels.order import Order, by_feature

GATHERED = 1 << 26
"""Numbers that a gather of rows may hold at once."""
_PART = 1 << 19
"""Numbers of a part of a sum by features on a processor."""


def weighted_rows(values: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    # With 32-bit indices the bags run through a vectorised kernel that is five times as fast.
    return F.embedding_bag(indices.int(), rows, per_sample_weights=values.to(rows.dtype), mode="sum")


def row_products(x: Tensor, indices: Tensor, rows: Tensor, order: Order | None = None) -> Tensor:
    sampled = rows.device.type == "cpu" and rows.dtype == x.dtype and rows.dtype in (torch.float32, torch.float64)
    if sampled and indices.shape[1] <= rows.shape[0] and not _differentiated(x, rows):
        return _sampled(x, indices, rows, order or by_feature(indices, rows.shape[0]))
    step = max(1, GATHERED // max(1, indices.shape[1] * rows.shape[1]))
    parts = (
        torch.einsum("nd,nkd->nk", x[start : start + step], rows[indices[start : start + step].long()])
        for start in range(0, x.shape[0], step)
    )
    return torch.cat([x.new_empty(0, indices.shape[1]), *parts])


def _sampled(x: Tensor, indices: Tensor, rows: Tensor, order: Order) -> Tensor:
    """rows xᵀ, computed only where a sparse mask has entries: feature by feature, so that each of `rows` is read once."""
    out = x.new_zeros(indices.numel())
    if len(out):
        _accept_sparse()
        size, blank = (rows.shape[0], x.shape[0]), torch.zeros_like(out)
        mask = torch.sparse_csr_tensor(order.offsets, order.rows, blank, size, check_invariants=False)
        out[order.entries] = torch.sparse.sampled_addmm(mask, rows.contiguous(), x.mT, beta=0.0).values()
    return out.view(indices.shape)


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
        return _bags(order.rows, order.offsets, weights, x)
    # Large tensors come in pages that must be cleared first, which takes longer than the sums: so they are made in
    # parts that stay in the cache, and copied to memory that is there already.
    if out is None:
        out = x.new_empty(order.features, x.shape[1])
    step = max(1, _PART // x.shape[1])
    ends = [*order.offsets[::step].tolist(), len(order.rows)]
    for part, start in enumerate(range(0, order.features, step)):
        offsets = order.offsets[start : start + step + 1] - ends[part]
        entries = slice(ends[part], ends[part] + int(offsets[-1]))
        out[start : start + step] = _bags(order.rows[entries], offsets, weights[entries], x)
    return out


def _bags(rows: Tensor, offsets: Tensor, weights: Tensor, x: Tensor) -> Tensor:
    return F.embedding_bag(rows, x, offsets=offsets, per_sample_weights=weights, mode="sum", include_last_offset=True)
