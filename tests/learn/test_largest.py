"""The m largest of a row are those that topk finds, on every way of searching."""

from __future__ import annotations

import pytest
import torch

from concept_probe.learn.kernels.largest import row_topk


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("n", "f", "m"), [(50, 12_288, 48), (5, 100, 7), (3, 8, 8), (0, 64, 4), (2, 70_001, 5), (9, 4096, 1)]
)
def test_values_and_places_are_those_of_topk(dtype, n, f, m):
    x = torch.randn(n, f, generator=torch.Generator().manual_seed(f)).to(dtype)
    x[:, 0], x[:, 1], x[:, 2] = float("inf"), -float("inf"), -0.0
    values, places = row_topk(x, m)
    assert torch.equal(values.sort(1, descending=True).values, x.topk(m, 1).values)
    assert torch.equal(x.gather(1, places), values)
    assert all(len(set(row)) == m for row in places.tolist())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_all_negative_and_all_equal_rows(dtype):
    x = -torch.rand(4, 4096, generator=torch.Generator().manual_seed(0)).to(dtype) - 1
    assert torch.equal(row_topk(x, 9)[0].sort(1, descending=True).values, x.topk(9, 1).values)
    values, places = row_topk(torch.full((2, 4096), -3.0, dtype=dtype), 9)
    assert (values == -3).all() and all(len(set(row)) == 9 for row in places.tolist())


def test_the_input_is_left_alone():
    x = torch.randn(4, 640)
    before = x.clone()
    row_topk(x, 3)
    assert torch.equal(x, before)
