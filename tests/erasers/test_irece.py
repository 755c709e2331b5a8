"""IRECE: attention to the name, the region, and what a guard may do between two steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.activations.attention import attention_to_text
from concept_probe.erasers import Intervention, Irece, NegativePrompt, Uce
from concept_probe.erasers.guards.irece import Locator, Region, disturbed, laid_out
from concept_probe.families import UNetSubject
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd
from concept_probe.types import Moment, Prompt, Query, Sampling

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=3, guidance=3.0, batch=8)
QUERIES = [Query(Prompt("a cat"), 1), Query(Prompt("the sun"), 2)]


def test_attention_to_the_name_is_the_mean_over_heads_and_layers():
    subject = tiny_sd()
    locator, out = Locator(subject, "cat", "irece"), subject.sites("denoiser_out")[0]
    got, inputs = [], []

    def look(x: Tensor, moment: Moment) -> None:
        found = locator([2, 3], (8, 8)) if "cond" in moment.branches else None
        if found is not None:
            got.append(found)

    with tap(
        subject, {out: look, subject.sites("denoiser_in")[0]: lambda x, m: inputs.append((x.clone(), m.timestep))}
    ):
        subject.run_to([out], QUERIES, SAMPLING, [0])
    latents, timestep = inputs[0]
    condition = subject.encode([Prompt("cat")]).rows(torch.zeros(2, dtype=torch.long))
    with torch.no_grad(), attention_to_text(subject) as maps:
        subject.predict(latents[2:], torch.full((2,), timestep), condition)
    wanted = 0
    for layer in maps:  # token 1 is the name, behind the beginning token
        side = round(layer.shape[2] ** 0.5)
        square = layer[..., 1].mean(1).view(2, 1, side, side)
        wanted = wanted + torch.nn.functional.interpolate(square, (8, 8), mode="bilinear", align_corners=False)[
            :, 0
        ] / len(maps)
    torch.testing.assert_close(got[0], wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_name_that_is_given_is_taken_whole():
    given = Irece(text="a cat, a dog", limit=1, sampling=SAMPLING)(tiny_sd(), CONCEPT)
    assert given.made_by["options"]["text"] == "a cat, a dog"
    assert Irece(limit=1, sampling=SAMPLING)(tiny_sd(), CONCEPT).made_by["options"]["text"] == "cat"


def test_patches_keep_the_ratio_of_the_sides():
    assert laid_out(torch.arange(8.0)[None], (4, 8)).shape == (1, 4, 8)
    assert torch.equal(laid_out(torch.arange(8.0)[None], (2, 4))[0], torch.arange(8.0).view(2, 4))


def test_the_level_of_disturbed_latents_stays():
    x = 5 * torch.randn(3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    out = disturbed(x, noise, 0.7)
    torch.testing.assert_close(out.flatten(1).std(1), x.flatten(1).std(1), rtol=0.05, atol=0.0)
    assert torch.equal(disturbed(x, noise, 0.0), x)


@pytest.mark.parametrize("family", DIFFUSION)
def test_only_the_region_and_only_early_steps_are_disturbed(family):
    subject = DIFFUSION[family]()
    region = Region(Locator(subject, "cat", "irece"), {999: 0.0}, Irece(until=0.5))
    walk = walk_of(subject)
    before = walk.latents.clone()
    region.seen = torch.zeros(2, 8, 8, dtype=torch.bool)
    region.seen[1, 2:5, 3] = True
    moved = region.disturb(walk, 1)
    assert moved is not None and (moved[1, :, 2:5, 3] != 0).all()
    moved[1, :, 2:5, 3] = 0
    assert not moved.any() and torch.equal(walk.latents, before)
    region.seen = torch.ones(2, 8, 8, dtype=torch.bool)
    assert region.disturb(walk, 2) is None  # 2 of 3 steps is behind half of them


def test_what_was_seen_in_a_step_outlasts_the_passes_of_other_guards():
    subject = tiny_sd()
    out = subject.sites("denoiser_out")[0]
    region = Region(Locator(subject, "cat", "irece"), {999: 0.0}, Irece())
    guard = Intervention("irece", "cat", {out: region.see}, between=region.disturb)
    with guard.on(subject), NegativePrompt("a dog")(subject, CONCEPT).on(subject):
        subject.run_to([out], QUERIES, SAMPLING, [0])
    assert region.seen is not None and region.seen.shape == (2, *subject.latent_shape[1:]) and region.seen.all()


def walk_of(subject: UNetSubject):
    return subject.trajectory([1, 2], 3)


def test_the_place_is_found_with_the_weights_before_the_edit():
    subject = tiny_sd()
    weights = subject.weight_hash()
    edit = Uce()(subject, CONCEPT)
    with edit.on(subject):
        edited = subject.weight_hash()
        with subject.state.unedited():
            assert subject.weight_hash() == weights
        assert subject.weight_hash() == edited != weights


def test_a_guard_between_steps_scales_and_ends():
    subject = tiny_sd()
    site = subject.sites("denoiser_out")[0]
    before = subject.generate(QUERIES, SAMPLING)
    seen: list[Tensor] = []

    def between(walk, step):
        seen.append(walk.latents.clone())
        return torch.ones_like(walk.latents) if step == 0 else None

    guard = Intervention("between", "cat", {}, 0.5, between=between)
    with guard.on(subject):
        during = subject.generate(QUERIES, SAMPLING)
    inputs: list[Tensor] = []
    with (
        guard.scaled(3.0).on(subject),
        tap(subject, {subject.sites("denoiser_in")[0]: lambda x, m: inputs.append(x.clone())}),
    ):
        subject.generate(QUERIES, SAMPLING)
    torch.testing.assert_close(inputs[1][2:], seen[0] + 1.5)
    assert not torch.equal(during, before) and torch.equal(subject.generate(QUERIES, SAMPLING), before)
    assert subject.hooks == () and site.component == "unet"
    with replace(guard, strength=0.0).on(subject):
        assert torch.equal(subject.generate(QUERIES, SAMPLING), before)
