"""Passes of the denoiser are what steps are counted by: not every scheduler takes one for a denoising step."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from concept_probe.activations import CaptureOptions, capture, tap
from concept_probe.erasers import Sld
from concept_probe.erasers.guards.sld import warming_up
from concept_probe.erasers.training.replay import collect
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Moment, Prompt, Query, Sampling

QUERIES = [Query(Prompt("a cat", "cat"), 0)]
SAMPLING = Sampling(steps=6, guidance=1.0)
PASSES = {
    "DDIMScheduler": 6, "PNDMScheduler": 7, "HeunDiscreteScheduler": 11, "KDPM2DiscreteScheduler": 11,
    "KDPM2AncestralDiscreteScheduler": 11, "UniPCMultistepScheduler": 6, "DPMSolverMultistepScheduler": 6,
}  # fmt: skip


def subject_with(kind: str, **options: Any) -> Any:
    subject = tiny_sd()
    more = {"skip_prk_steps": True} if kind == "PNDMScheduler" else {}
    made = getattr(diffusers, kind).from_config(subject.pipeline.scheduler.config, **more, **options)
    subject.pipeline.scheduler = made
    return subject


@pytest.mark.slow
@pytest.mark.parametrize("kind", PASSES)
def test_every_pass_is_met_captured_and_trained_on(kind):
    subject, met = subject_with(kind), []
    (site,) = subject.sites("denoiser_out")
    with tap(subject, {site: lambda x, moment: met.append((moment.step, moment.timestep))}):
        subject.generate(QUERIES, SAMPLING)
    assert [step for step, _ in met] == list(range(PASSES[kind])) and subject.passes(SAMPLING) == PASSES[kind]
    got = capture(subject, QUERIES, sites=[site], sampling=SAMPLING).read(site)
    assert set(got.columns["step"].tolist()) == set(range(PASSES[kind]))
    pool = collect(subject, [QUERIES[0].prompt], 1, SAMPLING, 0)
    assert pool.timesteps.tolist() == [t for _, t in met] and pool.passes is not None
    assert pool.passes.tolist() == list(range(PASSES[kind]))
    last = PASSES[kind] - 1
    only = capture(subject, QUERIES, sites=[site], sampling=SAMPLING, options=CaptureOptions(steps=[last])).read(site)
    assert torch.equal(only.x, got.x[got.columns["step"] == last])
    with pytest.raises(ValueError, match=f"pass {last + 1} was asked for; sampling has passes 0 to {last}"):
        capture(subject, QUERIES, sites=[site], sampling=SAMPLING, options=CaptureOptions(steps=[last + 1]))


def test_a_warm_up_has_as_many_passes_as_published_where_a_timestep_is_repeated():
    for kind, passes in (("PNDMScheduler", 51), ("DDIMScheduler", 50)):
        subject, met = subject_with(kind), []
        times = subject.trajectory([0], 50).timesteps.int().tolist()
        assert len(times) == passes
        for step, time in enumerate(times):
            moment = Moment((0,), ("cond",), step=step, timestep=time, timesteps=tuple(times))
            met.append(warming_up(moment, (1 - 0.14) * times[0]))
        assert met == [True] * 7 + [False] * (passes - 7)
    heun = subject_with("HeunDiscreteScheduler").trajectory([0], 50).timesteps.int().tolist()
    warm = [
        warming_up(Moment((0,), ("cond",), step=i, timestep=t, timesteps=tuple(heun)), 0.86 * heun[0])
        for i, t in enumerate(heun)
    ]
    assert warm == [t > 0.86 * heun[0] for t in heun]


@pytest.mark.slow
def test_a_warm_up_ends_where_it_should_in_a_picture():
    subject = subject_with("PNDMScheduler")
    plain, sampling = [], Sampling(steps=10, guidance=3.0)
    site = subject.sites("denoiser_out")[0]

    def moved() -> list[torch.Tensor]:
        seen = []
        with tap(subject, {site: lambda x, m: None if m.nested else seen.append(x.clone())}):
            subject.sample(QUERIES, sampling)
        return seen

    plain = moved()
    with Sld(warmup=0.3, threshold=10.0)(subject, tiny_concept()).on(subject):
        guarded = moved()
    same = [torch.equal(a, b) for a, b in zip(plain, guarded, strict=True)]
    assert same == [True] * 3 + [False] * 8


def test_a_sampler_with_a_share_of_fresh_noise_gets_the_pipelines_own():
    subject = subject_with("TCDScheduler")
    pipe = subject.pipeline
    pipe.set_progress_bar_config(disable=True)
    z = torch.randn(1, *subject.latent_shape, generator=torch.Generator().manual_seed(0))
    own = pipe("a cat", latents=z, num_inference_steps=3, guidance_scale=3.0, output_type="pt").images
    torch.testing.assert_close(subject.generate(QUERIES, Sampling(steps=3, guidance=3.0)), own, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "IPNDMScheduler"])
def test_a_sampler_whose_levels_are_not_known_draws_as_its_pipeline_and_says_what_it_can_not(kind):
    subject = subject_with(kind)
    pipe = subject.pipeline
    pipe.set_progress_bar_config(disable=True)
    z = torch.randn(1, *subject.latent_shape, generator=torch.Generator().manual_seed(QUERIES[0].seed))
    own = pipe("a cat", latents=z, num_inference_steps=4, guidance_scale=3.0, output_type="pt").images
    torch.testing.assert_close(subject.generate(QUERIES, Sampling(steps=4, guidance=3.0)), own, atol=1e-5, rtol=1e-4)
    sigmas = subject.trajectory([0], 4).sigmas.tolist()
    assert (
        len(sigmas) == subject.passes(Sampling(steps=4)) and sigmas == sorted(sigmas, reverse=True) and min(sigmas) >= 0
    )
    with pytest.raises(ValueError, match=f"how much noise {kind} has at a step is not known here"):
        subject.schedule.level_at(torch.tensor([1]))
