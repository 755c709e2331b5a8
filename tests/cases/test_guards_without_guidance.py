"""A guard that acts through guidance says so, once, where pictures are made without."""

from __future__ import annotations

import warnings

import pytest
import torch

from concept_probe.erasers import erase
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sdxl
from concept_probe.types import Prompt, Query, Sampling

QUERIES = [Query(Prompt("a cat", "cat"), seed) for seed in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["negative_prompt", "sld"])
def test_it_warns_once_and_only_then(name):
    subject = tiny_sdxl()
    guard = erase(name, subject, tiny_concept())
    for guidance, times in ((0.0, 1), (1.0, 1), (3.0, 0)):
        sampling = Sampling(steps=2, guidance=guidance, batch=1)
        before = subject.generate(QUERIES, sampling)
        with warnings.catch_warnings(record=True) as said, guard.on(subject):
            warnings.simplefilter("always")
            during = subject.generate(QUERIES, sampling)
        assert sum(f"{name} is on and changes nothing" in str(w.message) for w in said) == times
        assert torch.equal(before, during) == bool(times) or name == "sld"
