"""The strongest features are the strongest, whichever precision picks the candidates."""

from __future__ import annotations

import pytest
import torch

from concept_probe.learn.train import topk_search as select
from concept_probe.learn.train.topk_search import (
    CandidateCount,
    certified,
    fastest_precision,
    largest_preactivations,
    product_error,
)


def made(n=300, d=48, f=2048, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    u = torch.randn(n, d, generator=g, dtype=dtype)
    rows = torch.randn(f, d, generator=g, dtype=dtype) / d**0.5
    return u, rows, 0.1 * torch.randn(f, generator=g, dtype=dtype)


def plain(u, rows, bias, k):
    return (u.double() @ rows.double().mT + bias.double()).topk(k, dim=1)


def same_sets(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.long().sort(1).values == b.long().sort(1).values).all(1).double().mean())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["full", "bfloat16"])
@pytest.mark.parametrize(("f", "k"), [(2048, 8), (2048, 32), (2047, 5), (96, 40), (40, 40), (16384, 12)])
def test_values_and_features_are_those_of_a_plain_search(precision, f, k):
    u, rows, bias = made(f=f)
    values, indices = largest_preactivations(u, rows, bias, k, precision)
    expected = plain(u, rows, bias, k)
    assert same_sets(indices, expected.indices) == 1.0
    torch.testing.assert_close(values.double(), expected.values, rtol=1e-5, atol=1e-5)
    assert indices.dtype == torch.int32


def test_both_precisions_give_the_same_bits():
    u, rows, bias = made()
    full, fast = (largest_preactivations(u, rows, bias, 16, p) for p in ("full", "bfloat16"))
    assert torch.equal(full[0], fast[0]) and torch.equal(full[1], fast[1])


def test_rows_whose_candidates_are_too_close_are_done_again(monkeypatch):
    """Hundreds of features within a thousandth of each other: a bfloat16 product cannot tell them apart."""
    u, rows, bias = made(n=50, d=32, f=1024)
    rows[:] = rows[0] + 1e-3 * rows
    u = rows[0] + 0.1 * u  # where pre-activations are negative nothing fires, and nothing has to be told apart
    again = []
    full = select._full
    monkeypatch.setattr(select, "_full", lambda u, *rest: again.append(len(u)) or full(u, *rest))
    values, indices = largest_preactivations(u, rows, bias * 0, 8, "bfloat16")
    assert again and again[0] >= 40
    expected = plain(u, rows, bias * 0, 8)
    torch.testing.assert_close(values.double(), expected.values, rtol=1e-5, atol=1e-5)
    # without the repair the features would be wrong
    monkeypatch.setattr(select, "certified", lambda u, *rest: torch.ones(len(u), dtype=torch.bool))
    _, unchecked = largest_preactivations(u, rows, bias * 0, 8, "bfloat16")
    assert same_sets(unchecked, expected.indices) < 0.5 < same_sets(indices, expected.indices)


@pytest.mark.slow
def test_ordinary_rows_are_certified_and_not_done_again(monkeypatch):
    u, rows, bias = made(n=2000, d=256, f=4096)
    monkeypatch.setattr(select, "_full", lambda u, *rest: pytest.fail(f"{len(u)} rows were done again"))
    largest_preactivations(u, rows, bias, 32, "bfloat16")


def test_a_certificate_needs_the_gap_that_errors_could_hide():
    u = torch.ones(3, 4)
    approximate = torch.tensor([[9.0, 5.0], [9.0, 7.0], [9.0, -3.0]])
    exact = approximate + torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.0, 0.0]])
    least = torch.tensor([7.0, 7.05, -2.0])
    error = product_error(u, approximate, exact)
    assert float(error) == pytest.approx((0.5 - select.ROUNDING * 9) / 2)
    # 5 may hide a little more than 5.5 but not 7, 7 may hide 7.05; below 0 nothing fires
    assert certified(u, approximate, least, error).tolist() == [True, False, True]


def test_more_candidates_are_picked_where_rows_stay_in_doubt():
    candidates = CandidateCount()
    assert candidates.count(1) > 1 and candidates.count(32) == 48
    for _ in range(50):
        candidates.heed(0.5)
    assert candidates.count(32) == select.WIDEST * 32 / 2
    for _ in range(500):
        candidates.heed(0.0)
    assert candidates.count(32) == 48


@pytest.mark.parametrize("ratio", [1.5, 3.0])
def test_the_number_of_candidates_changes_no_bit(ratio):
    u, rows, bias = made(n=400, d=64, f=4096, seed=3)
    plain, wide = (
        largest_preactivations(u, rows, bias, 16, "bfloat16", c) for c in (CandidateCount(), CandidateCount(ratio))
    )
    assert torch.equal(plain[0], wide[0]) and torch.equal(plain[1], wide[1])


def test_no_rows_and_more_features_asked_for_than_there_are():
    u, rows, bias = made(n=0, f=64)
    values, indices = largest_preactivations(u, rows, bias, 4, "bfloat16")
    assert values.shape == indices.shape == (0, 4)
    u, rows, bias = made(n=3, f=10)
    assert largest_preactivations(u, rows, bias, 99, "full")[0].shape == (3, 10)


def test_blocks_of_rows_change_nothing_but_rounding(monkeypatch):
    u, rows, bias = made(n=700, f=1024)
    whole = largest_preactivations(u, rows, bias, 8, "full")
    monkeypatch.setattr(select, "CPU_BLOCK_BYTES", 1)
    monkeypatch.setattr(select, "BLOCK_ROWS", 100)
    parts = largest_preactivations(u, rows, bias, 8, "full")
    assert torch.equal(whole[1], parts[1]) and torch.equal(whole[0], parts[0])


def test_candidates_exceed_k_and_the_choice_of_precision_is_a_measurement():
    assert all(CandidateCount().count(k) > k for k in (1, 8, 32, 500))
    assert fastest_precision(torch.device("cpu"), 64, 512) in ("full", "bfloat16")
