"""Laws of taps and of edits that every family keeps, at the sites of every role."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.erasers import Edit, LowRank
from concept_probe.erasers.erasure.parameters import address
from concept_probe.families import Subject
from concept_probe.registry import UnknownName
from concept_probe.testing.law import Laws, about, shared_subject
from concept_probe.testing.models import TINY_MODELS, answered
from concept_probe.testing.reading import everything, hooks_on, states_of_parameters
from concept_probe.types import Prompt, Query, Site

QUERIES = [Query(Prompt("a cat", "cat"), 1), Query(Prompt("the dog"), 2)]
READING = ("text_stream", "text_mlp_hidden", "resid", "mlp_hidden")
"""Roles that reading a prompt meets, an output and an input of either kind of subject."""


class RoleLaws(Laws):
    """Here `name` is that of a role."""

    registry = TINY_MODELS

    @classmethod
    def cases(cls) -> Iterator[tuple[str, str, tuple[str, Site]]]:
        """(model, role, (role, its first site))."""
        for model in TINY_MODELS.own if cls.own else TINY_MODELS.added:
            subject = shared_subject(model)
            yield from ((model, role, (role, subject.sites(role)[0])) for role in subject.roles())

    @pytest.fixture
    def subject(self, model: str) -> Subject:
        return shared_subject(model)

    @about(lambda place: place[1].side != "weight")
    def test_a_tap_that_only_looks_changes_no_bit(self, subject: Subject, name: str) -> None:
        before, seen = answered(subject, QUERIES), []
        with tap(subject, {s: lambda x, moment: seen.append(x.shape) for s in subject.sites(name)}):
            assert torch.equal(answered(subject, QUERIES), before)
        assert len(seen) >= len(subject.sites(name))
        with tap(subject, {s: lambda x, moment: x for s in subject.sites(name)}):
            assert torch.equal(answered(subject, QUERIES), before)

    @about(lambda place: place[1].side != "weight")
    def test_a_replacement_reaches_the_answer_and_is_gone_afterwards(self, subject: Subject, name: str) -> None:
        before = answered(subject, QUERIES)
        with tap(subject, {s: lambda x, moment: torch.zeros_like(x) for s in subject.sites(name)}):
            assert not torch.allclose(answered(subject, QUERIES), before, atol=1e-6)
        assert torch.equal(answered(subject, QUERIES), before)

    @about(lambda place: place[1].side != "weight")
    def test_hooks_are_gone_after_an_exception(self, subject: Subject, name: str) -> None:
        def fail(x: Any, moment: Any) -> None:
            raise KeyError("inside the pass")

        before = answered(subject, QUERIES)
        with pytest.raises(KeyError, match="inside the pass"), tap(subject, dict.fromkeys(subject.sites(name), fail)):
            answered(subject, QUERIES)
        with pytest.raises(KeyboardInterrupt), tap(subject, {subject.sites(name)[0]: lambda x, moment: None}):
            raise KeyboardInterrupt
        assert hooks_on(subject) == []
        assert torch.equal(answered(subject, QUERIES), before)

    @about(lambda place: place[0] == "text_out")
    def test_an_unknown_site_fails_before_anything_is_hooked(self, subject: Subject, name: str) -> None:
        component = next(reversed(subject.components))
        looks = {subject.sites(name)[0]: lambda x, moment: None, Site(component, "up.9"): lambda x, moment: None}
        with pytest.raises(UnknownName, match="nearest"), tap(subject, looks):
            raise RuntimeError("not reached")
        assert hooks_on(subject) == []

    @about(lambda place: place[0] in READING)
    def test_two_taps_on_a_site_run_in_order_of_entering(self, subject: Subject, name: str) -> None:
        site, seen = subject.sites(name)[0], []
        with (
            tap(subject, {site: lambda x, moment: torch.full_like(x, 2.0)}),
            tap(subject, {site: lambda x, moment: x * 3}),
            tap(subject, {site: lambda x, moment: seen.append(x)}),
        ):
            subject.encode([QUERIES[0].prompt])
        assert seen[0].unique().tolist() == [6.0]
        assert hooks_on(subject) == []

    @about(lambda place: place[1].side == "weight")
    def test_an_edit_acts_and_then_every_byte_is_back(self, subject: Any, name: str) -> None:
        edit, before = random_edit(subject, name), answered(subject, QUERIES)
        weights, parameters = everything(subject), states_of_parameters(subject)
        if name == "unembed" and subject.tied:
            with pytest.raises(ValueError, match="is tied to"), edit.on(subject):
                raise AssertionError("not reached")
        else:
            with edit.on(subject):
                assert not torch.allclose(answered(subject, QUERIES), before, atol=1e-6)
            with pytest.raises(KeyError, match="on purpose"), edit.on(subject):
                raise KeyError("on purpose")
        assert states_of_parameters(subject) == parameters
        assert all(torch.equal(x, weights[key]) for key, x in everything(subject).items())
        assert torch.equal(answered(subject, QUERIES), before)

    @about(lambda place: place[1].side == "weight")
    def test_other_weights_are_refused(self, subject: Subject, model: str, name: str) -> None:
        edit, other = random_edit(subject, name), TINY_MODELS[model](seed=1)
        before = other.weight_hash(whole=True)
        with pytest.raises(ValueError, match="nothing was applied"), edit.on(other):
            raise AssertionError("not reached")
        assert other.weight_hash(whole=True) == before


def random_edit(subject: Subject, role: str) -> Edit:
    """A random rank-1 change of every weight of a role."""
    generator, deltas = torch.Generator().manual_seed(0), {}
    for site in subject.sites(role):
        rows, columns = subject.parameter(site).shape
        u, v = (torch.randn(n, 1, generator=generator) for n in (rows, columns))
        deltas[address(site)] = LowRank(u, v)
    return Edit("random", "cat", deltas, subject.weight_hash())
