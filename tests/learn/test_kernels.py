"""The three sparse products against dense formulas in float64."""

from __future__ import annotations

import warnings

import pytest
import torch

from concept_probe.learn.kernels import by_feature, row_products, scatter_rows, weighted_rows


def made(n=30, k=4, d=7, f=11, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(n, k, generator=g, dtype=dtype)
    indices = torch.randint(f, (n, k), generator=g, dtype=torch.int32)  # with repeats
    return values, indices, torch.randn(f, d, generator=g, dtype=dtype), torch.randn(n, d, generator=g, dtype=dtype)


def dense(values, indices, f):
    return torch.zeros(len(values), f, dtype=values.dtype).scatter_add(1, indices.long(), values)


SHAPES = [{}, {"k": 1}, {"f": 1}, {"n": 1}, {"n": 0}, {"d": 1}, {"n": 257, "k": 9, "d": 33, "f": 64}]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_products_equal_the_dense_formula(shape, dtype):
    values, indices, rows, x = made(**shape, dtype=dtype)
    f = len(rows)
    z = dense(values, indices, f).double()
    near = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(weighted_rows(values, indices, rows).double(), z @ rows.double(), rtol=near, atol=near)
    products = (x.double() @ rows.double().mT).gather(1, indices.long())
    torch.testing.assert_close(row_products(x, indices, rows).double(), products, rtol=near, atol=near)
    summed = scatter_rows(values, by_feature(indices, f), x)
    torch.testing.assert_close(summed.double(), z.mT @ x.double(), rtol=near, atol=near)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats_are_accepted(dtype):
    values, indices, rows, x = made(dtype=dtype)
    z = dense(values.double(), indices, len(rows))
    torch.testing.assert_close(weighted_rows(values, indices, rows).double(), z @ rows.double(), rtol=0.05, atol=0.05)
    assert row_products(x, indices, rows).dtype == dtype
    assert scatter_rows(values, by_feature(indices, len(rows)), x).shape == rows.shape


def test_the_decoder_is_differentiable_in_values_and_rows():
    values, indices, rows, _ = made()
    values, rows = values.requires_grad_(True), rows.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v, r: weighted_rows(v, indices, r), (values, rows))


def test_entries_are_ordered_by_feature_and_then_by_row():
    _, indices, rows, _ = made()
    order = by_feature(indices, len(rows))
    flat = indices.flatten()[order.entries]
    assert (flat.diff() >= 0).all()
    assert order.features == len(rows) and order.counts.sum() == indices.numel()
    for j in range(order.features):
        own = order.rows[order.offsets[j] : order.offsets[j + 1]]
        assert (own.diff() >= 0).all()
        assert own.tolist() == (indices == j).nonzero()[:, 0].tolist()


def test_nobody_is_warned_about_beta_tensors():
    _, indices, rows, x = made()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row_products(x, indices, rows)
