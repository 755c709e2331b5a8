"""Pictures: the same as the library's own pipeline makes, whatever the batch, and gradients through the loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler

from concept_probe.activations import tap
from concept_probe.testing.models.diffusion import DIFFUSION
from concept_probe.types import Moment, Prompt, Query, Sampling

QUERIES = [Query(Prompt(text), seed) for seed, text in enumerate(["a cat", "the dog", "a cat", "red sun", "thing"])]


@pytest.fixture(params=DIFFUSION)
def subject(request):
    return DIFFUSION[request.param]()


def by_library(subject, queries, sampling):
    subject.pipeline.set_progress_bar_config(disable=True)
    pictures = subject.pipeline(
        [q.prompt.text for q in queries],
        num_inference_steps=sampling.steps,
        guidance_scale=sampling.guidance,
        generator=[torch.Generator().manual_seed(q.seed) for q in queries],
        output_type="pt",
    )
    return pictures.images


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_pictures_are_those_of_the_library(subject, guidance):
    sampling = Sampling(steps=4, guidance=guidance)
    ours = subject.generate(QUERIES, sampling)
    assert ours.shape == (5, 3, 16, 16) and ours.dtype == torch.float32
    assert ours.std() > 0.05
    torch.testing.assert_close(ours, by_library(subject, QUERIES, sampling), atol=2e-6, rtol=0)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_a_stochastic_scheduler_draws_from_the_seed_of_its_row(subject, guidance):
    subject.pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(subject.pipeline.scheduler.config)
    sampling = Sampling(steps=4, guidance=guidance)
    ours = subject.generate(QUERIES, sampling)
    torch.testing.assert_close(ours, by_library(subject, QUERIES, sampling), atol=2e-6, rtol=0)
    torch.testing.assert_close(ours[3:], subject.generate(QUERIES[3:], sampling), atol=2e-6, rtol=0)


def test_zeroed_and_encoded_empty_prompts_differ_and_both_match_the_library():
    subject = DIFFUSION["sdxl"]()
    sampling = Sampling(steps=3, guidance=5.0)
    assert subject.pipeline.config.force_zeros_for_empty_prompt
    zeroed = subject.generate(QUERIES, sampling)
    subject.pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    encoded = subject.generate(QUERIES, sampling)
    assert not torch.allclose(zeroed, encoded, atol=1e-4)
    torch.testing.assert_close(encoded, by_library(subject, QUERIES, sampling), atol=2e-6, rtol=0)


@pytest.mark.slow
def test_neither_batch_size_nor_order_matters(subject):
    sampling = Sampling(steps=3, guidance=4.0, batch=5)
    whole = subject.generate(QUERIES, sampling)
    for batch in (1, 2, 3):
        parts = subject.generate(QUERIES, Sampling(steps=3, guidance=4.0, batch=batch))
        torch.testing.assert_close(parts, whole, atol=2e-6, rtol=0)
    backwards = subject.generate(QUERIES[::-1], sampling)
    torch.testing.assert_close(backwards.flip(0), whole, atol=2e-6, rtol=0)
    assert not torch.allclose(whole[0], whole[2], atol=1e-3)  # one prompt, two seeds


@pytest.mark.slow
def test_the_same_call_gives_the_same_bits_and_leaves_the_scheduler_alone(subject):
    before = dict(vars(subject.pipeline.scheduler))
    first = subject.generate(QUERIES, Sampling(steps=3))
    subject.generate(QUERIES[:1], Sampling(steps=7))
    assert torch.equal(first, subject.generate(QUERIES, Sampling(steps=3)))
    after = vars(subject.pipeline.scheduler)
    assert before.keys() == after.keys()
    assert all(before[k] is after[k] for k in before)


def test_equal_prompts_are_encoded_once_and_guidance_1_never_asks_the_empty_prompt(subject):
    seen: list[Moment] = []
    site = subject.sites("text_stream")[0]
    with tap(subject, {site: lambda x, moment: seen.append(moment)}):
        subject.generate(QUERIES, Sampling(steps=2, guidance=1.0, batch=2))
    assert [m.prompts for m in seen] == [(0, 1, 3, 4)]
    assert {b for m in seen for b in m.branches} == {"cond"}


def test_the_unconditional_rows_come_first_and_say_so():
    subject = DIFFUSION["sd"]()
    seen: list[tuple[int, Moment]] = []
    site = subject.sites("cross_key")[0]
    with tap(subject, {site: lambda x, moment: seen.append((len(x), moment))}):
        subject.generate(QUERIES[:3], Sampling(steps=2, guidance=4.0, batch=2))
    assert [(n, m.prompts, m.branches, m.step) for n, m in seen] == [
        (4, (0, 1, 0, 1), ("uncond", "uncond", "cond", "cond"), 0),
        (4, (0, 1, 0, 1), ("uncond", "uncond", "cond", "cond"), 1),
        (2, (2, 2), ("uncond", "cond"), 0),
        (2, (2, 2), ("uncond", "cond"), 1),
    ]
    kinds = seen[0][1].token_kinds
    assert kinds is not None and kinds.shape == (4, 20)
    assert torch.equal(kinds[2:], subject.tokenise([q.prompt for q in QUERIES[:2]]).kinds)
    assert seen[0][1].timestep == 501  # DDIM, two of 1000 steps, offset 1


def test_no_pictures_of_nothing(subject):
    assert subject.generate([]).shape == (0, 3, 16, 16)


def test_a_bare_string_is_refused_with_the_mend(subject):
    with pytest.raises(TypeError, match=r"expected a Prompt or a Query, found str 'a cat'; write Prompt\('a cat'\)"):
        subject.generate(["a cat"])


def test_latents_and_pictures_are_in_the_library_s_units(subject):
    pictures = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    latents = subject.latents(pictures, batch=2)
    vae = subject.pipeline.vae
    expected = vae.encode(pictures * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
    torch.testing.assert_close(latents, expected)
    again = subject.decode(latents)
    decoded = vae.decode(latents / vae.config.scaling_factor).sample
    torch.testing.assert_close(again, (decoded / 2 + 0.5).clamp(0, 1))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_loss_is_the_library_s_noise_and_target(subject, prediction):
    from diffusers import DDIMScheduler

    config = {**subject.pipeline.scheduler.config, "prediction_type": prediction}
    subject.pipeline.scheduler.register_to_config(prediction_type=prediction)
    ddim: Any = DDIMScheduler.from_config(config)
    clean = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    prompts = [Prompt("a cat"), Prompt("the dog"), Prompt("a cat")]
    loss = subject.denoising_loss(clean, prompts, torch.Generator().manual_seed(5))
    again = subject.denoising_loss(clean, prompts, torch.Generator().manual_seed(5))
    assert torch.equal(loss, again)
    assert not torch.equal(loss, subject.denoising_loss(clean, prompts, torch.Generator().manual_seed(6)))

    generator = torch.Generator().manual_seed(5)
    times = torch.randint(1000, (3,), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    noisy = ddim.add_noise(clean, noise, times)
    target = {"epsilon": noise, "v_prediction": ddim.get_velocity(clean, noise, times), "sample": clean}[prediction]
    states = subject.encode(prompts)
    added = {"text_embeds": states.pooled, "time_ids": torch.tensor([[16.0, 16, 0, 0, 16, 16]] * 3)}
    said = subject.pipeline.unet(noisy, times, states.states, added_cond_kwargs=added).sample
    torch.testing.assert_close(loss, (said - target).square().mean())


@pytest.mark.slow
def test_gradients_reach_what_a_tap_puts_in_and_weights_that_were_made_trainable(subject):
    site = subject.sites("token_embedding")[0]
    pushed = torch.zeros(subject.module(site).weight.shape[1], requires_grad=True)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    prompts = [Prompt("a cat", "cat"), Prompt("the cat", "cat")]

    def push(x, moment):
        return x + (moment.token_kinds == 2)[..., None] * pushed

    with tap(subject, {site: push}):
        subject.denoising_loss(latents, prompts, torch.Generator().manual_seed(0)).backward()
    assert pushed.grad is not None and pushed.grad.abs().max() > 0
    step = 1e-2 * pushed.grad / pushed.grad.norm()
    with torch.no_grad():
        losses = []
        for sign in (1, -1):
            pushed.copy_(sign * step)
            with tap(subject, {site: push}):
                losses.append(subject.denoising_loss(latents, prompts, torch.Generator().manual_seed(0)))
    slope = float(losses[0] - losses[1]) / 2e-2
    assert slope == pytest.approx(float(pushed.grad.norm()), rel=0.05)

    with subject.trainable("unet") as parameters:
        subject.denoising_loss(latents, prompts, torch.Generator().manual_seed(0)).backward()
        assert sum(p.grad is not None for p in parameters) > 0.9 * len(parameters)
        assert all(p.grad is None for p in subject.components["text_encoder"].parameters())
    assert not any(p.requires_grad or p.grad is not None for p in subject.components["unet"].parameters())


def test_as_many_prompts_as_latents(subject):
    with pytest.raises(ValueError, match="2 latents were given 1 prompts"):
        subject.denoising_loss(torch.zeros(2, 4, 8, 8), [Prompt("a cat")], torch.Generator())
