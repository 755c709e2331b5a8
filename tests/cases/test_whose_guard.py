"""An erasure acts on the weights that it was made for, or on others where somebody says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.erasers import DifferenceOfMeans, Edit, Leace, Shift, Sld, WrongBase, erase
from concept_probe.find import difference_of_means, load_found, save_found
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models import TINY_MODELS
from concept_probe.types import Prompt, Query, Sampling

CONCEPT = tiny_concept()
SAID = r"was fitted on '.*' with weights [0-9a-f]{12}, but subject '.*' has weights .*meant_for\(subject\)"
DRAWN = ([Query(Prompt("a red cat"), 0)], Sampling(steps=2, guidance=3.0))


@pytest.fixture(scope="module")
def subject():
    return TINY_MODELS["sd"](seed=0)


@pytest.fixture(scope="module")
def other():
    return TINY_MODELS["sd"](seed=1)


@pytest.fixture(scope="module")
def guard(subject):
    return erase(Leace(how="intervention", role="text_stream"), subject, CONCEPT)


def small_edit(subject):
    site = subject.sites("cross_key_weight")[0]
    shift = Shift(torch.full_like(subject.parameter(site).detach(), 0.01))
    return Edit("probe", "cat", {f"{site.component}/{site.path}:weight": shift}, subject.weight_hash())


@pytest.mark.slow
def test_a_guard_of_other_weights_is_refused_unless_it_is_meant(guard, other):
    before = other.generate(*DRAWN)
    with pytest.raises(WrongBase, match=SAID), guard.on(other):
        pass
    assert torch.equal(other.generate(*DRAWN), before)
    meant = guard.meant_for(other)
    with meant.on(other):
        assert not torch.equal(other.generate(*DRAWN), before)
    assert meant.describe()["made_by"]["moved_from"] == guard.base_hash


@pytest.mark.slow
def test_edits_that_are_on_leave_a_subject_its_own(guard, subject):
    edit = small_edit(subject)
    with edit.on(subject), guard.on(subject):
        subject.encode([Prompt("a cat")])
    with edit.on(subject):
        on_top = erase(Leace(how="intervention", role="text_stream"), subject, CONCEPT)
        with on_top.on(subject):
            subject.encode([Prompt("a cat")])
    with pytest.raises(WrongBase, match=SAID), on_top.on(subject):
        pass


@pytest.mark.slow
def test_the_same_weights_in_half_are_warned_of(guard):
    half = TINY_MODELS["sd"](seed=0)
    for module in half.components.values():
        module.half()
    with pytest.warns(UserWarning, match="it may be the same model in torch.float16"), guard.on(half):
        pass


@pytest.mark.slow
def test_a_guard_that_asks_its_subject_is_made_again(subject, other):
    guard = erase(Sld(warmup=0.0), subject, CONCEPT)
    with pytest.raises(WrongBase, match=SAID), guard.on(other):
        pass
    with pytest.raises(ValueError, match="asks 'tiny-sd-0', which it was made on, while it acts"):
        guard.meant_for(other)
    twin = TINY_MODELS["sd"](seed=0)
    with pytest.raises(RuntimeError, match="make the guard again"), guard.on(twin):
        twin.generate(*DRAWN)


def test_an_edit_is_moved_by_the_same_word(subject, other):
    edit = small_edit(subject)
    with pytest.raises(WrongBase, match="meant_for"), edit.on(other):
        pass
    before = other.weight_hash()
    with edit.meant_for(other).on(other):
        assert other.weight_hash() != before
        other.generate(*DRAWN)
    assert other.weight_hash() == before


def test_what_was_found_in_another_model_is_refused_unless_it_is_meant(tmp_path):
    own, other = TINY_MODELS["llama"](seed=0), TINY_MODELS["llama"](seed=1)
    found = difference_of_means(own, CONCEPT, own.sites("resid")[0])
    eraser = DifferenceOfMeans(how="intervention")
    (read,) = load_found(save_found([found], tmp_path))
    assert read.base_hash == own.weight_hash()
    assert eraser(own, CONCEPT, [read])
    with pytest.raises(WrongBase, match=r"difference: what was found at model/.* is of a model with weights .*replace"):
        eraser(other, CONCEPT, [read])
    assert eraser(other, CONCEPT, [replace(read, base_hash="")])
