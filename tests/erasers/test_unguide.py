"""UnGuide mixes base and adapted predictions by how much the adapters change the walk at hand."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.erasers import Edit, Intervention, NegativePrompt, Sld, Training, Unguide
from concept_probe.erasers.finetune.unguide import Mixture, relative_influence, separating_threshold
from concept_probe.families import UNetSubject
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd
from concept_probe.types import Moment, Query, Sampling, Splits

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=3, guidance=2.0, batch=8)
SCHOOL = Training(steps=4, batch=4, pictures=2, sampling=SAMPLING, rate=0.1)
QUERIES = [Query(CONCEPT.target.test[0], 1), Query(CONCEPT.unrelated.test[0], 2)]


def mixture(guard: Intervention) -> Mixture:
    (action,) = guard.actions.values()
    assert isinstance(action, Mixture)
    return action


def walk(subject: UNetSubject, sampling: Sampling = SAMPLING) -> list[Tensor]:
    """Predictions of all rows at every step of a walk, without passes that a guard asks for itself."""
    said = []

    def look(x: Tensor, moment: Moment) -> None:
        if not moment.nested:
            said.append(x.clone())

    site = subject.sites("denoiser_out")[0]
    with tap(subject, {site: look}):
        subject.run_to([site], QUERIES, sampling)
    return said


def test_a_threshold_by_hand():
    threshold, accuracy = separating_threshold([8.0, 9.0, 1.0], [2.0, 0.5])
    assert threshold == pytest.approx(4.0) and accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert separating_threshold([3.0, 12.0], [1.0, 27.0])[1] == pytest.approx(0.75)
    assert separating_threshold([1.0], [2.0])[1] == 0.5  # no better than a guess
    assert separating_threshold([10.0, 40.0], [1.0, 5.0]) == (pytest.approx(50**0.5), 1.0)


def test_influence_is_relative_to_the_empty_prompts_and_finite():
    ratio = relative_influence(torch.tensor([3.0, 0.0, 1.0]), torch.tensor([2.0, 1.0, 0.0]))
    assert ratio[0] == 1.5 and ratio[1] == pytest.approx(1e-6) and torch.isfinite(ratio).all()


@pytest.mark.slow
@pytest.mark.parametrize("family", DIFFUSION)
@pytest.mark.parametrize(("threshold", "w"), [(1e-9, -1.5), (1e30, 1.75)])
def test_both_branches_are_mixed_by_the_formula(family, threshold, w):
    subject = DIFFUSION[family]()
    guard = Unguide(present=-1.5, absent=1.75, threshold=threshold, training=SCHOOL)(subject, CONCEPT)
    adapters = Edit("test", "cat", mixture(guard).student.deltas(), subject.weight_hash())
    base = walk(subject)[0]
    with adapters.on(subject):
        adapted = walk(subject)[0]
    with guard.on(subject):
        mixed = walk(subject)[0]
    assert not torch.allclose(base, adapted, atol=1e-4)
    torch.testing.assert_close(mixed, w * base + (1 - w) * adapted, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_where_the_concept_is_not_found_a_weight_of_one_changes_no_bit():
    subject = tiny_sd()
    before = subject.generate(QUERIES, SAMPLING)
    guard = Unguide(absent=1.0, threshold=1e30, training=SCHOOL)(subject, CONCEPT)
    with guard.on(subject):
        assert torch.equal(subject.generate(QUERIES, SAMPLING), before)


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [2.0, 1.0])
def test_each_walk_goes_by_its_own_ratio(guidance):
    """With and without guidance, where the guard asks about the empty prompt itself."""
    subject = tiny_sd()
    guard = Unguide(watch=1, threshold=1.0, training=SCHOOL)(subject, CONCEPT)
    action = mixture(guard)
    adapters = Edit("test", "cat", action.student.deltas(), subject.weight_hash())
    base = walk(subject)[0]
    with adapters.on(subject):
        change = walk(subject)[0] - base
    norms = torch.linalg.vector_norm(change.flatten(1), dim=1)
    ratios = norms[2:] / norms[:2]
    between = float(ratios.prod().sqrt())
    high = int(ratios.argmax())
    action.threshold = between
    with guard.on(subject):
        walk(subject, replace(SAMPLING, guidance=guidance))
        assert action.weight(high) == -1.0 and action.weight(1 - high) == 2.0
    own, empty = action.measured[high][0]
    assert own / empty == pytest.approx(float(ratios[high]), rel=1e-3)


@pytest.mark.slow
def test_a_walk_is_measured_at_its_first_steps_and_forgotten_with_the_next():
    subject = tiny_sd()
    guard = Unguide(watch=2, training=SCHOOL)(subject, CONCEPT)
    action = mixture(guard)
    with guard.on(subject):
        first = subject.generate(QUERIES, SAMPLING)
        assert [len(x) for x in action.measured.values()] == [2, 2]
        assert torch.equal(subject.generate(QUERIES, SAMPLING), first)
        with torch.no_grad():  # outside a walk every latent speaks for itself
            condition = subject.encode([QUERIES[0].prompt])
            subject.predict(torch.ones(1, *subject.latent_shape), torch.tensor([500]), condition)
        assert [len(x) for x in action.measured.values()] == [1]


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_what_another_guard_asks_for_is_no_walk_of_its_own(first):
    """Its passes have no row that was asked for: they neither end the measuring of the walk nor add to it."""
    subject = tiny_sd()
    guard = Unguide(watch=2, threshold=1.0, training=SCHOOL)(subject, CONCEPT)
    action = mixture(guard)
    order = [guard, NegativePrompt("a dog")(subject, CONCEPT)]
    with contextlib.ExitStack() as stack:
        for one in order if first else order[::-1]:
            stack.enter_context(one.on(subject))
        subject.generate(QUERIES, SAMPLING)
        assert [len(x) for x in action.measured.values()] == [2, 2]
        again = subject.generate(QUERIES, SAMPLING)
        assert torch.equal(subject.generate(QUERIES, SAMPLING), again)


@pytest.mark.slow
@pytest.mark.parametrize("other", [NegativePrompt("a dog"), Sld("a dog", warmup=0.0)], ids=lambda x: x.name)
def test_what_another_guard_adds_is_not_mixed(other):
    """w is for what the model says, not for what another guard has made of it."""
    subject = tiny_sd()
    guard = Unguide(present=-1.5, threshold=1e-9, training=SCHOOL)(subject, CONCEPT)
    beside = other(subject, CONCEPT)
    base = walk(subject)[0]
    with guard.on(subject):
        mixed = walk(subject)[0] - base
    with beside.on(subject):
        led = walk(subject)[0] - base
        with guard.on(subject):
            both = walk(subject)[0] - base
    assert mixed.norm() > 1e-3 and led.norm() > 1e-3
    torch.testing.assert_close(both, mixed + led, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_the_threshold_is_what_divides_the_select_prompts():
    subject = tiny_sd()
    weights = subject.weight_hash()
    eraser = Unguide(training=replace(SCHOOL, pictures=4))
    guard = eraser(subject, CONCEPT)
    action = mixture(guard)
    own, others = (
        eraser._influences(subject, action.student, prompts)
        for prompts in (
            CONCEPT.target.select,
            [p for kind in eraser.preserve for p in CONCEPT.prompts(kind, "select")],
        )
    )
    assert len(own) == 4 * eraser.watch
    assert (guard.made_by["divided_at"], guard.made_by["told_apart"]) == separating_threshold(own, others)
    assert action.threshold == guard.made_by["divided_at"]
    assert subject.weight_hash() == weights
    assert not any(hook for m in subject.components["unet"].modules() for hook in m._forward_hooks)


@pytest.mark.slow
def test_bad_input_is_refused_and_changes_nothing():
    subject = tiny_sd()
    weights = subject.weight_hash()
    with pytest.raises(ValueError, match="watch is 0"):
        Unguide(watch=0)(subject, CONCEPT)
    untold = replace(CONCEPT, target=replace(CONCEPT.target, select=()))
    with pytest.raises(ValueError, match="no select prompts in target to set the threshold by"):
        Unguide(training=SCHOOL)(subject, untold)
    with pytest.raises(ValueError, match="no select prompts in no list"):
        Unguide(preserve=(), training=SCHOOL)(subject, CONCEPT)
    assert isinstance(Unguide(threshold=2.0, training=SCHOOL)(subject, untold), Intervention)
    with pytest.raises(ValueError, match="no anchor prompts"):
        Unguide(training=SCHOOL)(subject, replace(CONCEPT, anchor=Splits()))
    assert subject.weight_hash() == weights
