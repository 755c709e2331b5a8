"""What is said before a training run, against what tensors of these shapes hold."""

from __future__ import annotations

import errno

import pytest
import torch

from concept_probe.learn import TopK, estimate_training
from concept_probe.learn.sae import Sae
from concept_probe.learn.train import estimate
from tests.learn.planted import SITE

D, F = 24, 96


def test_parts_are_those_of_the_tensors():
    sae = Sae(
        SITE, TopK(3), W_enc=torch.randn(D, F), b_enc=torch.randn(F), W_dec=torch.randn(F, D), b_dec=torch.randn(D)
    ).requires_grad_(True)
    optimiser = torch.optim.Adam(sae.parameters())
    sum(p.sum() for p in sae.parameters()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    optimiser.step()

    def held(tensors) -> int:
        return sum(t.numel() * t.element_size() for t in tensors)

    said = estimate_training(D, F, 3, batch=64, samples=6400, step_seconds=0.5, rows=100, dtype=torch.float16)
    assert said.weights == held([*sae.parameters(), torch.zeros(F, dtype=torch.long)])
    assert said.gradients == held(p.grad for p in sae.parameters() if p.grad is not None)
    moments = [s[name] for s in optimiser.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert said.moments == held(moments)
    assert said.rows == held([torch.zeros(100, D).half()])
    assert said.seconds == 50.0 and said.bytes > said.weights + said.gradients + said.moments
    assert "GB of memory (weights" in str(said) and "; 50 s" in str(said)


def test_more_of_anything_takes_more():
    small = estimate_training(D, F, 3, batch=64, samples=6400)
    assert estimate_training(D, 2 * F, 3, batch=64, samples=6400).weights > small.weights
    assert estimate_training(D, F, 3, batch=128, samples=6400).batch > small.batch
    assert estimate_training(D, F, 3, batch=64, samples=640_000).bytes == small.bytes and small.seconds is None
    with pytest.raises(ValueError, match="k is 0; it is a whole number from 1 on"):
        estimate_training(D, F, 0, batch=64, samples=6400)


def test_too_little_memory_is_refused_with_two_ways_out():
    device = torch.device("cpu")
    estimate_training(D, F, 3, batch=64, samples=6400).check_memory(device)
    if estimate.free_memory(device) is None:
        pytest.skip("this system does not say how much memory is free")
    with pytest.raises(
        OSError, match=r"has .* GB free; .*--expansion\) or smaller batches \(options.batch, --batch"
    ) as caught:
        estimate_training(1 << 14, 1 << 22, 32, batch=4096, samples=10**9).check_memory(device)
    assert caught.value.errno == errno.ENOMEM
