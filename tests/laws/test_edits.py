"""Laws of edits, over every family and every role that is a weight."""

from __future__ import annotations

import pytest
import torch

from concept_probe.erasers import Edit, LowRank
from concept_probe.testing.models import TINY_MODELS, answered
from concept_probe.types import Prompt, Query

QUERIES = [Query(Prompt("a cat", "cat"), 1), Query(Prompt("the dog"), 2)]
SUBJECTS = {name: build() for name, build in TINY_MODELS.items()}
CASES = [(name, role) for name, s in SUBJECTS.items() for role in s.roles() if s.sites(role)[0].side == "weight"]


def edit_of(subject, role) -> Edit:
    """A random rank-1 change of every weight of a role."""
    generator, deltas = torch.Generator().manual_seed(0), {}
    for site in subject.sites(role):
        rows, columns = subject.parameter(site).shape
        u, v = (torch.randn(n, 1, generator=generator) for n in (rows, columns))
        deltas[f"{site.component}/{site.path}:weight"] = LowRank(u, v)
    return Edit("random", "cat", deltas, subject.weight_hash())


def state(subject):
    every = [(n, p) for c, m in subject.components.items() for n, p in m.named_parameters(prefix=c)]
    return {n: p.detach().clone() for n, p in every}, [p.data_ptr() for _, p in every]


@pytest.mark.parametrize("name,role", CASES)
def test_it_acts_and_then_every_byte_is_back(name, role):
    subject = SUBJECTS[name]
    edit, before, (weights, pointers) = edit_of(subject, role), answered(subject, QUERIES), state(subject)
    if role == "unembed" and subject.tied:  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(ValueError, match="is tied to"), edit.on(subject):
            raise AssertionError("not reached")
    else:
        with edit.on(subject):
            assert not torch.allclose(answered(subject, QUERIES), before, atol=1e-6)
        with pytest.raises(KeyError, match="on purpose"), edit.on(subject):
            raise KeyError("on purpose")
    again, places = state(subject)
    assert places == pointers and all(torch.equal(again[n], x) for n, x in weights.items())
    assert torch.equal(answered(subject, QUERIES), before)


@pytest.mark.parametrize("name", TINY_MODELS)
def test_other_weights_are_refused(name):
    role = next(role for n, role in CASES if n == name)
    edit, other = edit_of(SUBJECTS[name], role), TINY_MODELS[name](seed=1)
    before = other.weight_hash()
    with pytest.raises(ValueError, match="nothing was applied"), edit.on(other):
        raise AssertionError("not reached")
    assert other.weight_hash() == before
