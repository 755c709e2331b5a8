"""The Triton kernels in Triton's interpreter, against dense formulas in float64.

Run by `test_triton.py` in a process of its own, since the interpreter must be chosen before triton is imported:

    TRITON_INTERPRET=1 pytest tests/learn/triton_cases.py
"""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torch.autograd import gradcheck, gradgradcheck
from triton.runtime.interpreter import GridExecutor

from concept_probe.learn.kernels import triton_launch, triton_ops
from concept_probe.learn.kernels.order import by_feature
from concept_probe.learn.kernels.triton_kernels import row_start
from concept_probe.learn.kernels.triton_ops import decode_error, row_products, scatter_rows, weighted_rows


def made(n=5, k=3, d=37, f=11, dtype=torch.float64, integer=torch.int64, seed=0):
    """values, indices, rows, bias, x; indices repeat within a row."""
    g = torch.Generator().manual_seed(seed)
    values, rows = torch.randn(n, k, generator=g, dtype=torch.float64), torch.randn(f, d, generator=g).double()
    indices = torch.randint(f, (n, k), generator=g).to(integer)
    bias, x = torch.randn(d, generator=g, dtype=torch.float64), torch.randn(n, d, generator=g, dtype=torch.float64)
    return values.to(dtype), indices, rows.to(dtype), bias.to(dtype), x.to(dtype)


def dense(values, indices, f):
    return torch.zeros(len(values), f, dtype=torch.float64).scatter_add(1, indices.long(), values.double())


def assert_products_are_the_formula(values, indices, rows, bias, x, **close):
    f = len(rows)
    z = dense(values, indices, f)
    out = weighted_rows(values, indices, rows)
    assert out.dtype == rows.dtype
    torch.testing.assert_close(out.double(), z @ rows.double(), **close)
    products = row_products(x, indices, rows)
    assert products.dtype == x.dtype
    expected = (x.double() @ rows.double().mT).gather(1, indices.long())
    torch.testing.assert_close(products.double(), expected, **close)
    summed = scatter_rows(values, by_feature(indices, f), x)
    assert summed.dtype == x.dtype
    torch.testing.assert_close(summed.double(), z.mT @ x.double(), **close)
    error, squares = decode_error(values, indices, rows, bias, x)
    assert error.dtype == x.dtype
    rest = x.double() - z @ rows.double() - bias.double()
    torch.testing.assert_close(error.double(), rest, **close)
    torch.testing.assert_close(squares.double(), rest.square().sum(1), rtol=1e-5, atol=1e-5)


SHAPES = [{}, {"k": 1}, {"f": 1}, {"n": 1}, {"d": 1}, {"d": 16}, {"n": 3, "k": 19, "d": 300}, {"f": 200}]


@pytest.mark.parametrize("integer", [torch.int64, torch.int32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_equal_the_dense_formula(shape, integer):
    assert_products_are_the_formula(*made(**shape, integer=integer), rtol=1e-12, atol=1e-12)


def test_float32_is_summed_in_float32():
    assert_products_are_the_formula(*made(dtype=torch.float32), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "step"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-11)])
def test_short_floats_are_rounded_once_at_the_end(dtype, step):
    # Half a unit in the last place, a whole one for bfloat16, which the interpreter cuts off where a GPU rounds.
    # Sums that were themselves kept in `dtype` would be off by several.
    assert_products_are_the_formula(*made(k=40, dtype=dtype), rtol=1.02 * step, atol=1e-4)


def test_operands_of_two_dtypes():
    values, indices, rows, _, x = made()
    z = dense(values, indices, len(rows))
    short = rows.bfloat16()
    torch.testing.assert_close(weighted_rows(values.float(), indices, short), (z @ short.double()).bfloat16())
    assert row_products(x.float(), indices, short).dtype == torch.float32
    assert scatter_rows(values.bfloat16(), by_feature(indices, 11), x.float()).dtype == torch.float32


@pytest.mark.parametrize("n", [0, 4])
def test_nothing_to_sum_gives_zeros_or_nothing(n):
    values, indices, rows, bias, x = made(n=n, k=3 if n == 0 else 0)
    assert torch.equal(weighted_rows(values, indices, rows), torch.zeros(n, 37).double())
    assert row_products(x, indices, rows).shape == indices.shape
    assert torch.equal(scatter_rows(values, by_feature(indices, 11), x), torch.zeros(11, 37).double())
    error, squares = decode_error(values, indices, rows, bias, x)
    assert torch.equal(error, x - bias) and squares.shape == (n,)


def test_features_without_entries_get_zero_rows():
    values, indices, _, _, x = made()
    out = scatter_rows(values, by_feature(indices * 0 + 4, 11), x)
    assert (out[4] != 0).all() and (out[:4] == 0).all() and (out[5:] == 0).all()


def test_transposed_and_strided_operands():
    values, indices, rows, bias, x = made()
    wide = torch.stack([x, x + 1], dim=2)
    operands = values.mT.contiguous().mT, indices.mT.contiguous().mT, rows.mT.contiguous().mT, bias, wide[..., 0]
    assert not any(t.is_contiguous() for t in (operands[0], operands[1], operands[2], operands[4]))
    assert_products_are_the_formula(*operands, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", [1, 2, 4, 8])
@pytest.mark.parametrize("run", range(8))
def test_long_runs_split_wherever_they_begin_and_end(monkeypatch, cell, run):
    """Entries per feature: `run` before a long run, which so begins at any place of a cell, and ends at any."""
    monkeypatch.setattr(triton_launch, "CELL", cell)
    g = torch.Generator().manual_seed(run)
    counts = torch.tensor([run, 31 - 2 * run, 0, 1, cell, 2 * cell, 0])
    indices = torch.arange(7).repeat_interleave(counts)[torch.randperm(int(counts.sum()), generator=g)][:, None]
    values, x = torch.randn(len(indices), 1, generator=g).double(), torch.randn(len(indices), 5, generator=g).double()
    expected = dense(values, indices, 7).mT @ x
    torch.testing.assert_close(scatter_rows(values, by_feature(indices, 7), x), expected, rtol=1e-12, atol=1e-12)


def test_one_feature_with_all_entries():
    values, indices, _, _, x = made(n=300, k=2, d=3)
    assert indices.numel() > 2 * triton_launch.CELL
    out = scatter_rows(values, by_feature(indices * 0 + 1, 3), x)
    torch.testing.assert_close(out[1], (values.sum(1)[:, None] * x).sum(0), rtol=1e-12, atol=1e-12)
    assert (out[0] == 0).all() and (out[2] == 0).all()


def test_cells_are_read_and_not_merely_written(monkeypatch):
    """Poisoned cells must show: without this, the split could be dead code that every other test passes."""
    monkeypatch.setattr(triton_launch, "CELL", 4)
    kernels = triton_launch._kernels()
    values, indices, _, _, x = made(n=8, k=2, d=3, f=1)

    class Poison:
        def __getitem__(self, grid):
            return lambda values, x, entries, owners, offsets, ends, cells, *rest, **shape: cells.fill_(torch.nan)

    monkeypatch.setattr(kernels, "cell_sums", Poison())
    assert scatter_rows(values, by_feature(indices, 1), x).isnan().all()


def test_gradients_are_autograd_s():
    values, indices, rows, bias, x = made(n=2, k=2, d=3, f=3, seed=1)
    for tensor in (values, rows, bias, x):
        tensor.requires_grad_(True)
    order = by_feature(indices, 3)
    assert gradcheck(lambda v, r: weighted_rows(v, indices, r), (values, rows))
    assert gradcheck(lambda a, r: row_products(a, indices, r), (x, rows))
    assert gradcheck(lambda v, a: scatter_rows(v, order, a), (values, x))
    assert gradcheck(lambda v, r, b, a: decode_error(v, indices, r, b, a), (values, rows, bias, x))


def test_gradients_can_be_differentiated_again():
    values, indices, rows, bias, x = made(n=2, k=2, d=2, f=3)
    for tensor in (values, rows, bias, x):
        tensor.requires_grad_(True)
    order = by_feature(indices, 3)
    # fast_mode compares random projections of the Jacobians in place of every element.
    assert gradgradcheck(lambda v, r: weighted_rows(v, indices, r), (values, rows), fast_mode=True)
    assert gradgradcheck(lambda a, r: row_products(a, indices, r), (x, rows), fast_mode=True)
    assert gradgradcheck(lambda v, a: scatter_rows(v, order, a), (values, x), fast_mode=True)
    operands = (values, rows, bias, x)
    assert gradgradcheck(lambda v, r, b, a: decode_error(v, indices, r, b, a), operands, fast_mode=True)


def test_gradient_of_the_loss_is_that_of_the_dense_formula():
    values, indices, rows, bias, x = made(n=6, k=4)
    leaves = [t.clone().requires_grad_(True) for t in (values, rows, bias, x)]
    v, r, b, a = leaves
    decode_error(v, indices, r, b, a)[1].sum().backward()
    found = [t.grad for t in leaves]
    leaves = [t.clone().requires_grad_(True) for t in (values, rows, bias, x)]
    v, r, b, a = leaves
    z = torch.zeros(6, 11).double().scatter_add(1, indices, v)
    (a - z @ r - b).square().sum().backward()
    for one, other in zip(found, (t.grad for t in leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_gradients_have_the_dtype_of_what_they_belong_to():
    values, indices, rows, _, x = made(n=3, k=2, d=4, f=5)
    v, r = values.float().requires_grad_(True), rows.bfloat16().requires_grad_(True)
    weighted_rows(v, indices, r).float().square().sum().backward()
    assert v.grad is not None and r.grad is not None
    assert (v.grad.dtype, r.grad.dtype) == (torch.float32, torch.bfloat16)
    a = x.float().requires_grad_(True)
    row_products(a, indices, rows.bfloat16()).sum().backward()
    assert a.grad is not None and a.grad.dtype == torch.float32


def test_only_what_is_asked_for_gets_a_gradient():
    values, indices, rows, bias, x = made(n=3, k=2, d=4, f=5)
    rows.requires_grad_(True)
    error, _ = decode_error(values, indices, rows, bias, x)
    (gradient,) = torch.autograd.grad(error.sum(), rows)
    expected = -dense(values, indices, 5).mT @ torch.ones(3, 4).double()
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@triton.jit
def _starts(out, low, width):
    row = tl.program_id(0)
    tl.store(out + row, row_start(low + row, width))
    tl.store(out + 2 + row, row_start(low.to(tl.int64) + row, width))


def test_offsets_are_computed_in_64_bits():
    """The last rows of f * d = 2^33 elements, from indices of 32 and of 64 bits."""
    out, width, low = torch.zeros(4, dtype=torch.int64), 2**13, 2**20 - 2
    _starts[(2,)](out, low, width)
    assert out.tolist() == [width * low, width * (low + 1)] * 2
    assert width * low > 2**32


@pytest.mark.parametrize("integer", [torch.int64, torch.int32])
def test_rows_beyond_two_to_the_31_elements(monkeypatch, integer):
    """4 GiB of address space, of which only the pages that are read become memory."""
    # The interpreter copies every operand back, here onto itself, which would touch all of it.
    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *_: None)
    f, d = 2**21 + 2, 1024
    rows = torch.empty(f, d, dtype=torch.float16)
    rows[-1], rows[0] = 2.0, 5.0
    values, x = torch.tensor([[3.0]]), torch.ones(1, d)
    indices = torch.tensor([[f - 1]], dtype=integer)
    assert (f - 1) * d > 2**31
    found = triton_launch.row_products(x, indices, rows, torch.float32)
    assert found.tolist() == [[2.0 * d]]
    assert (triton_launch.weighted_rows(values, indices, rows, torch.float32) == 6.0).all()


@pytest.mark.parametrize(
    ("operation", "error", "says"),
    [
        (lambda v, i, r, b, x: weighted_rows(v[:, :2], i, r), ValueError, r"\(5, 2\).*\(5, 3\)"),
        (lambda v, i, r, b, x: weighted_rows(v[0], i[0], r), ValueError, "two axes"),
        (lambda v, i, r, b, x: weighted_rows(v, i.double(), r), ValueError, "int64 or int32"),
        (lambda v, i, r, b, x: weighted_rows(v.long(), i, r), ValueError, "floats"),
        (lambda v, i, r, b, x: weighted_rows(v, i + 1, r), IndexError, r"11 features"),
        (lambda v, i, r, b, x: row_products(x, i - 1, r), IndexError, r"-1 \.\."),
        (lambda v, i, r, b, x: row_products(x[:, 1:], i, r), ValueError, r"\(5, 36\).*\(11, 37\)"),
        (lambda v, i, r, b, x: row_products(x[1:], i, r), ValueError, "must agree"),
        (lambda v, i, r, b, x: scatter_rows(v, by_feature(i[1:], 11), x), ValueError, "12 entries"),
        (lambda v, i, r, b, x: scatter_rows(v, by_feature(i, 11), x[1:]), ValueError, "must agree"),
        (lambda v, i, r, b, x: decode_error(v, i, r, b[1:], x), ValueError, r"bias \(36,\)"),
        (lambda v, i, r, b, x: decode_error(v, i, r, b, x[1:]), ValueError, r"x is \(4, 37\)"),
        (lambda v, i, r, b, x: weighted_rows(v, i, r.to("meta")), ValueError, "meta"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(operation, error, says):
    values, indices, rows, bias, x = made()
    indices[0, 0], indices[0, 1] = 0, 10
    with pytest.raises(error, match=says):
        operation(values, indices, rows, bias, x)


def test_a_feature_that_does_not_exist_gives_nan_and_reads_nothing():
    """As on a GPU, where the range is not checked beforehand."""
    values, indices, rows, _, x = made()
    indices[1, 2], indices[3, 0] = 2**40, -7
    out = triton_launch.weighted_rows(values, indices, rows, torch.float64)
    assert out.isnan().all(1).tolist() == [False, True, False, True, False]
    products = triton_launch.row_products(x, indices, rows, torch.float64)
    assert products.isnan().nonzero().tolist() == [[1, 2], [3, 0]]


def test_entries_of_no_feature_are_left_out(monkeypatch):
    monkeypatch.setattr(triton_launch, "CELL", 2)
    values, indices, _, _, x = made(n=6)
    kept = (indices >= 2) & (indices < 6)
    out = scatter_rows(values, by_feature(indices - 2, 4), x)
    expected = dense(torch.where(kept, values, 0), indices, 11).mT @ x
    torch.testing.assert_close(out, expected[2:6], rtol=1e-12, atol=1e-12)


def test_without_the_interpreter_a_processor_is_refused(monkeypatch):
    values, indices, rows, _, _ = made()
    assert triton_ops.available(rows)
    monkeypatch.delenv("TRITON_INTERPRET")
    assert not triton_ops.available(rows)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"):
        weighted_rows(values, indices, rows)
