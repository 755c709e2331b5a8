"""What taps do with tensors inside each other, in tuples and in mappings; `RoleLaws` has what holds at every role."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.families import UNetSubject
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt, Query, Site

QUERIES = [Query(Prompt("a cat", "cat"), 1), Query(Prompt("the dog"), 2)]


@pytest.fixture
def subject() -> UNetSubject:
    return tiny_sd()


def test_inner_taps_leave_first_and_outer_ones_stay(subject: UNetSubject):
    site = subject.sites("text_out")[0]
    plain = subject.encode([QUERIES[0].prompt]).states
    with tap(subject, {site: lambda x, moment: x + 1}):
        with tap(subject, {site: lambda x, moment: x * 0}):
            assert not subject.encode([QUERIES[0].prompt]).states.any()
        assert torch.equal(subject.encode([QUERIES[0].prompt]).states, plain + 1)


def test_a_replacement_must_fit(subject: UNetSubject):
    site = subject.sites("text_stream")[0]
    wrongs: list[tuple[Any, type[Exception], str]] = [
        (lambda x, m: x[:, :1], ValueError, r"layers.0:out' returned shape \(1, 1, 16\) for \(1, 20, 16\)"),
        (lambda x, m: x.double(), TypeError, "returned torch.float64"),
        (lambda x, m: 3, TypeError, "returned a int"),
    ]
    for wrong, error, said in wrongs:
        with pytest.raises(error, match=said), tap(subject, {site: wrong}):
            subject.encode([QUERIES[0].prompt])
    with (
        pytest.raises(ValueError, match="is a weight"),
        tap(subject, {subject.sites("mlp_value")[0]: lambda x, m: None}),
    ):
        pass
    item = Site(site.component, site.path, "in", 0)
    with (
        pytest.raises(ValueError, match="only outputs and weights have items"),
        tap(subject, {item: lambda x, m: None}),
    ):
        pass


def test_items_of_tuple_outputs(subject: UNetSubject):
    """CLIP attention gives (states, weights or None)."""
    path = "encoder.layers.0.self_attn"
    seen = []
    sites = {
        Site("text_encoder", path): lambda x, m: seen.append(x),  # its only tensor
        Site("text_encoder", path, "out", 0): lambda x, m: torch.zeros_like(x),
    }
    plain = subject.encode([QUERIES[0].prompt]).states
    with tap(subject, sites):
        assert not torch.equal(subject.encode([QUERIES[0].prompt]).states, plain)
    assert seen[0].shape == (1, 20, 16)
    absent = Site("text_encoder", path, "out", 1)
    with pytest.raises(TypeError, match=r"tensors at items \[0\]"), tap(subject, {absent: lambda x, m: None}):
        subject.encode([QUERIES[0].prompt])


def test_named_outputs(subject: UNetSubject):
    """The encoder inside returns a mapping; its only tensor can be replaced."""
    with tap(subject, {Site("text_encoder", "encoder"): lambda x, m: torch.zeros_like(x)}):
        states = subject.encode([QUERIES[0].prompt]).states
    norm: Any = subject.components["text_encoder"].final_layer_norm
    assert torch.equal(states, norm.bias.expand_as(states))
