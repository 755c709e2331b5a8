"""Triton, torch and float64 on the device: the three agree, and Triton gives equal bits again."""

from __future__ import annotations

import pytest
import torch

from concept_probe.learn.kernels import torch_ops, triton_ops
from concept_probe.learn.kernels.order import by_feature

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]

SHAPES = [
    {"n": 1000, "k": 32, "d": 768, "f": 12288},
    {"n": 257, "k": 7, "d": 333, "f": 1001},
    {"n": 300, "k": 1, "d": 1, "f": 1},
    {"n": 4096, "k": 16, "d": 64, "f": 8},
]
"""The last has runs of thousands of entries."""
HALF_A_UNIT = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


def made(n, k, d, f, dtype, integer=torch.int32):
    """values, indices, rows, bias, x on the device; a few features fire very often (the cube of a uniform number)."""
    g = torch.Generator(device="cuda").manual_seed(0)
    draw = {"generator": g, "device": "cuda"}
    indices = (torch.rand(n, k, **draw) ** 3 * f).to(integer).clamp_max(f - 1)
    values, rows, bias, x = (torch.randn(*shape, **draw).to(dtype) for shape in ((n, k), (f, d), (d,), (n, d)))
    return values, indices, rows, bias, x


def close(found, exact, terms, dtype):
    """Within float32's rounding of `terms` summed products, and half a unit where the result is a short float."""
    assert found.dtype == dtype
    slack = 4e-7 * terms**0.5
    relative = 1.02 * HALF_A_UNIT.get(dtype, 0.0) + slack
    torch.testing.assert_close(found.double(), exact, rtol=relative, atol=slack * float(exact.abs().max()))


@pytest.mark.parametrize("integer", [torch.int64, torch.int32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_triton_is_within_rounding_of_float64(shape, dtype, integer):
    values, indices, rows, bias, x = made(**shape, dtype=dtype, integer=integer)
    n, k, d, f = (shape[axis] for axis in "nkdf")
    z = torch.zeros(n, f, dtype=torch.float64, device="cuda").scatter_add(1, indices.long(), values.double())
    order = by_feature(indices, f)
    close(triton_ops.weighted_rows(values, indices, rows), z @ rows.double(), k, dtype)
    products = (x.double() @ rows.double().mT).gather(1, indices.long())
    close(triton_ops.row_products(x, indices, rows), products, d, dtype)
    close(triton_ops.scatter_rows(values, order, x), z.mT @ x.double(), int(order.counts.max()), dtype)
    error, squares = triton_ops.decode_error(values, indices, rows, bias, x)
    rest = x.double() - z @ rows.double() - bias.double()
    close(error, rest, k, dtype)
    close(squares, rest.square().sum(1), d, torch.float32)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_triton_and_torch_agree(shape):
    values, indices, rows, _, x = made(**shape, dtype=torch.float32)
    order = by_feature(indices, shape["f"])
    for name, operands in {
        "weighted_rows": (values, indices, rows),
        "row_products": (x, indices, rows),
        "scatter_rows": (values, order, x),
    }.items():
        ours, theirs = getattr(triton_ops, name)(*operands), getattr(torch_ops, name)(*operands)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equal_input_gives_equal_bits(shape):
    values, indices, rows, bias, x = made(**shape, dtype=torch.float32)
    order = by_feature(indices, shape["f"])
    for operation in (
        lambda: triton_ops.weighted_rows(values, indices, rows),
        lambda: triton_ops.row_products(x, indices, rows),
        lambda: triton_ops.scatter_rows(values, order, x),
        lambda: torch.cat([t.flatten() for t in triton_ops.decode_error(values, indices, rows, bias, x)]),
    ):
        first = operation()
        assert all(torch.equal(operation(), first) for _ in range(5))


def test_gradients_are_autograd_s():
    values, indices, rows, bias, x = made(n=5, k=3, d=4, f=6, dtype=torch.float64)
    operands = [t.requires_grad_(True) for t in (values, rows, bias, x)]
    assert torch.autograd.gradcheck(lambda v, r, b, a: triton_ops.decode_error(v, indices, r, b, a), operands)
    order = by_feature(indices, 6)
    assert torch.autograd.gradcheck(lambda v, a: triton_ops.scatter_rows(v, order, a), (values, x))


def test_more_than_two_to_the_31_elements():
    d, f = 4096, 2**19 + 64
    if torch.cuda.mem_get_info()[0] < 3 * 2 * f * d:
        pytest.skip(f"needs {3 * 2 * f * d / 2**30:.0f} GiB of free device memory")
    rows = torch.zeros(f, d, dtype=torch.bfloat16, device="cuda")
    rows[-1] = 2.0
    indices = torch.full((3, 1), f - 1, dtype=torch.int32, device="cuda")
    values, x = torch.ones(3, 1, device="cuda"), torch.ones(3, d, dtype=torch.bfloat16, device="cuda")
    assert (triton_ops.weighted_rows(values, indices, rows) == 2).all()
    assert (triton_ops.row_products(x, indices, rows) == 2 * d).all()
    out = triton_ops.scatter_rows(values, by_feature(indices, f), x)
    assert (out[-1] == 3).all() and not out[:-1].any()


def test_a_feature_that_does_not_exist_gives_nan():
    values, indices, rows, _, x = made(n=4, k=2, d=8, f=6, dtype=torch.float32)
    indices[1, 0] = 6
    assert triton_ops.weighted_rows(values, indices, rows).isnan().all(1).tolist() == [False, True, False, False]
    assert triton_ops.row_products(x, indices, rows).isnan().nonzero().tolist() == [[1, 0]]
