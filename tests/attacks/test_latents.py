"""Attacks on the walk from noise to a picture: where it starts, what is mixed in, and that guards stay on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import concept_probe as cp
from concept_probe.activations import tap
from concept_probe.attacks import Budget, ImplicitPrompts, LatentInversion, NoiseTrajectory, VisualContext
from concept_probe.attacks.latents.base import nameless, own_noise
from concept_probe.attacks.latents.ddim_inversion import displaced, invert
from concept_probe.attacks.latents.renoising import renoised
from concept_probe.attacks.latents.sdedit import from_pictures, shuffled_pixels
from concept_probe.erasers import Sld
from concept_probe.families import UNetSubject
from concept_probe.families.diffusion.trajectory import SamplingHook, Trajectory
from concept_probe.testing.concepts import tiny_concept, tiny_recogniser
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.types import Prompt, Query, Sampling

SAMPLING = Sampling(steps=4, guidance=2.0, batch=8)
QUERIES = [Query(Prompt("a cat"), 0), Query(Prompt("the dog"), 1), Query(Prompt("a cat"), 2)]
models = pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])


def walk_of(subject, count: int = 2, steps: int = 4) -> Trajectory:
    return subject.trajectory(range(count), steps)


@models
def test_a_hook_that_does_nothing_changes_no_bit_and_is_gone_afterwards(make):
    subject = make()
    plain = subject.generate(QUERIES, SAMPLING)
    idle = SamplingHook(start=lambda w, r: None, after_step=lambda w, s: None)
    with pytest.raises(RuntimeError, match="on purpose"), subject.hooked(idle):
        assert torch.equal(subject.generate(QUERIES, SAMPLING), plain)
        raise RuntimeError("on purpose")
    assert subject.hooks == ()


@pytest.mark.slow
@models
def test_batches_change_nothing_where_walks_start_from_pictures_and_are_disturbed(make):
    subject = make()
    examples = tiny_concept().examples
    assert examples is not None
    latents = subject.latents(examples)
    for hook in (SamplingHook(start=from_pictures(latents, 0.5)), SamplingHook(after_step=renoised(0.2))):
        with subject.hooked(hook):
            one = subject.generate(QUERIES, SAMPLING)
            torch.testing.assert_close(subject.generate(QUERIES, replace(SAMPLING, batch=1)), one, atol=2e-5, rtol=1e-4)
        assert not torch.allclose(one, subject.generate(QUERIES, SAMPLING))


@models
def test_the_first_steps_are_left_out_and_every_guard_meets_the_rest(make):
    subject, seen = make(), []
    site = subject.sites("denoiser_out")[0]
    begin = from_pictures(torch.zeros(1, *subject.latent_shape), 0.5)
    with tap(subject, {site: lambda x, m: seen.append(m.step)}), subject.hooked(SamplingHook(start=begin)):
        subject.generate(QUERIES[:1], SAMPLING)
    assert seen == [2, 3]


@models
def test_with_almost_all_of_the_walk_left_out_the_latents_are_the_pictures(make):
    subject, ends = make(), []
    clean = torch.randn(2, *subject.latent_shape, generator=torch.Generator().manual_seed(0))
    begin = from_pictures(clean, 0.99)
    hook = SamplingHook(start=lambda w, r: (begin(w, r), ends.append(w.latents))[0])
    with subject.hooked(hook):
        subject.generate(QUERIES[:2], Sampling(steps=50, guidance=1.0))
    signal = torch.corrcoef(torch.stack([ends[0].flatten(), clean.flatten()]))[0, 1]
    assert signal > 0.99


@pytest.mark.slow
def test_inverted_latents_lead_back_to_the_picture():
    """Deterministic steps back and forth agree the better, the finer they are: of a model that knows noise from pictures."""
    subject, examples = cp.load("emoji"), cp.concept("camel").examples
    assert isinstance(subject, UNetSubject) and examples is not None
    clean, prompt, errors = subject.latents(examples[:2]), Prompt("a small icon"), []
    for steps in (15, 50):
        ends = []

        def begin(walk, rows):
            walk.latents = invert(subject, clean, walk, prompt)

        hook = SamplingHook(start=begin, after_step=lambda w, s, ends=ends: ends.append(w.latents))
        with subject.hooked(hook):
            subject.generate([Query(prompt, 0), Query(prompt, 1)], Sampling(steps=steps, guidance=1.0))
        errors.append(float((ends[-1] - clean).norm() / clean.norm()))
    assert errors[1] < errors[0] and errors[1] < 0.1, errors


def test_mixed_noise_keeps_the_level_and_comes_from_each_row_alone():
    walk = walk_of(tiny_sd(), 3)
    before = walk.latents.clone()
    renoised(0.3)(walk, 0)
    assert 0.8 < float(walk.latents.std() / before.std()) < 1.2 and not torch.equal(walk.latents, before)
    late = walk.latents.clone()
    renoised(0.3)(walk, 2)
    assert torch.equal(walk.latents, late)
    assert torch.equal(own_noise(walk_of(tiny_sd(), 3))[0], own_noise(walk_of(tiny_sd(), 1))[0])


def test_controls_hold_the_same_values_in_other_places():
    x = torch.rand(2, 3, 4, 4)
    for mixed in (shuffled_pixels(x, 0), displaced(x, 0)):
        assert not torch.equal(mixed, x) and torch.equal(mixed.flatten(2).sort().values, x.flatten(2).sort().values)
    assert nameless((Prompt("a cat", "cat"),)) == (Prompt(""),) and nameless((Prompt("icon"),)) == (Prompt("icon"),)


def test_a_guard_with_a_memory_acts_on_walks_that_leave_out_their_first_step():
    subject, concept = tiny_sd(), tiny_concept()
    begin = SamplingHook(start=from_pictures(torch.zeros(1, *subject.latent_shape), 0.5))
    query = [Query(concept.target.test[0], 0)]
    with subject.hooked(begin):
        plain = subject.generate(query, SAMPLING)
        with Sld(warmup=0.0, threshold=1.0)(subject, concept).on(subject):
            first, second = subject.generate(query, SAMPLING), subject.generate(query, SAMPLING)
    assert not torch.equal(first, plain) and torch.equal(first, second)


@pytest.mark.slow
def test_descriptions_alone_are_asked_and_other_attacks_say_what_they_miss():
    concept, budget = tiny_concept(), Budget(queries=9)
    attempt = ImplicitPrompts(tiny_recogniser(), SAMPLING)(tiny_sd(), concept, budget)
    assert {t.query.prompt for t in attempt.trials[0]} <= set(concept.implicit.test)
    for attack in (VisualContext, LatentInversion):
        with pytest.raises(ValueError, match="needs pictures of concept"):
            attack(tiny_recogniser(), SAMPLING)(tiny_sd(), replace(concept, examples=None), budget)
    for attack in (VisualContext, NoiseTrajectory):
        with pytest.raises(ValueError, match="rising numbers"):
            attack(tiny_recogniser(), SAMPLING, percent=(30, 10))(tiny_sd(), concept, budget)
