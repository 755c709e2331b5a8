"""Laws of taps, over every family and every role."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.registry import UnknownName
from concept_probe.testing.models import TINY_MODELS, answered
from concept_probe.testing.models.diffusion import DIFFUSION
from concept_probe.types import Prompt, Query, Site

QUERIES = [Query(Prompt("a cat", "cat"), 1), Query(Prompt("the dog"), 2)]
SUBJECTS = {name: build() for name, build in TINY_MODELS.items()}
FIRST = {
    name: ("text_stream", "text_mlp_hidden") if name in DIFFUSION else ("resid", "mlp_hidden") for name in TINY_MODELS
}
"""Two roles that reading a prompt meets, an output and an input."""
CASES = [
    (name, role) for name, s in SUBJECTS.items() for role in s.roles() if s.sites(role)[0].side != "weight"
]  # fmt: skip


def answers(subject):
    return answered(subject, QUERIES)


def hooks(subject):
    every = (m for c in subject.components.values() for m in c.modules())
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in every)


@pytest.fixture(scope="module")
def before():
    return {name: answers(s) for name, s in SUBJECTS.items()}


@pytest.mark.parametrize("name,role", CASES)
def test_a_tap_that_only_looks_changes_no_bit(name, role, before):
    subject, seen = SUBJECTS[name], []
    with tap(subject, {s: lambda x, moment: seen.append(x.shape) for s in subject.sites(role)}):
        assert torch.equal(answers(subject), before[name])
    assert len(seen) >= len(subject.sites(role))
    with tap(subject, {s: lambda x, moment: x for s in subject.sites(role)}):
        assert torch.equal(answers(subject), before[name])


@pytest.mark.parametrize("name,role", CASES)
def test_a_replacement_reaches_the_answer_and_is_gone_afterwards(name, role, before):
    subject = SUBJECTS[name]
    with tap(subject, {s: lambda x, moment: torch.zeros_like(x) for s in subject.sites(role)}):
        assert not torch.allclose(answers(subject), before[name], atol=1e-6)
    assert torch.equal(answers(subject), before[name])


@pytest.mark.parametrize("name", TINY_MODELS)
def test_hooks_are_gone_after_an_exception(name, before):
    subject = SUBJECTS[name]

    def fail(x, moment):
        raise KeyError("inside the pass")

    roles = [role for role in subject.roles() if subject.sites(role)[0].side != "weight"]
    for role in roles:
        with pytest.raises(KeyError, match="inside the pass"), tap(subject, dict.fromkeys(subject.sites(role), fail)):
            answers(subject)
    with pytest.raises(KeyboardInterrupt), tap(subject, {subject.sites(roles[-1])[0]: lambda x, moment: None}):
        raise KeyboardInterrupt
    assert hooks(subject) == 0
    assert torch.equal(answers(subject), before[name])


@pytest.mark.parametrize("name", TINY_MODELS)
def test_an_unknown_site_fails_before_anything_is_hooked(name):
    subject = SUBJECTS[name]
    component = next(reversed(subject.components))
    looks = {subject.sites("text_out")[0]: lambda x, moment: None, Site(component, "up.9"): lambda x, moment: None}
    with pytest.raises(UnknownName, match="nearest"), tap(subject, looks):
        raise RuntimeError("not reached")
    assert hooks(subject) == 0


@pytest.mark.parametrize("name,role", [(name, role) for name in TINY_MODELS for role in FIRST[name]])
def test_two_taps_on_a_site_run_in_order_of_entering(name, role):
    subject = SUBJECTS[name]
    site = subject.sites(role)[0]
    seen = []
    with (
        tap(subject, {site: lambda x, moment: torch.full_like(x, 2.0)}),
        tap(subject, {site: lambda x, moment: x * 3}),
        tap(subject, {site: lambda x, moment: seen.append(x)}),
    ):
        subject.encode([QUERIES[0].prompt])
    assert seen[0].unique().tolist() == [6.0]
    assert hooks(subject) == 0


def test_inner_taps_leave_first_and_outer_ones_stay():
    subject = SUBJECTS["sd"]
    site = subject.sites("text_out")[0]
    plain = subject.encode([QUERIES[0].prompt]).states
    with tap(subject, {site: lambda x, moment: x + 1}):
        with tap(subject, {site: lambda x, moment: x * 0}):
            assert not subject.encode([QUERIES[0].prompt]).states.any()
        assert torch.equal(subject.encode([QUERIES[0].prompt]).states, plain + 1)


def test_a_replacement_must_fit():
    subject = SUBJECTS["sd"]
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


def test_items_of_tuple_outputs():
    """CLIP attention gives (states, weights or None)."""
    subject = SUBJECTS["sd"]
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


def test_named_outputs():
    """The encoder inside returns a mapping; its only tensor can be replaced."""
    subject = SUBJECTS["sd"]
    with tap(subject, {Site("text_encoder", "encoder"): lambda x, m: torch.zeros_like(x)}):
        states = subject.encode([QUERIES[0].prompt]).states
    norm: Any = subject.components["text_encoder"].final_layer_norm
    assert torch.equal(states, norm.bias.expand_as(states))
