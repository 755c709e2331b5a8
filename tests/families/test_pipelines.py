"""Every kind of Stable Diffusion draws what its pipeline draws when it is called itself."""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Any

import diffusers
import pytest
import torch

from concept_probe.activations import tap
from concept_probe.erasers.training.replay import collect, null_predictions
from concept_probe.families import UNetSubject, adopt, load
from concept_probe.families.diffusion.schedulers import REFUSED, SCHEDULES, schedule_of
from concept_probe.families.identity import how_it_reads
from concept_probe.testing.models import save_model
from concept_probe.testing.models.by_itself import drawn_by_itself
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.testing.models.pipelines import NOISY, PIPELINES
from concept_probe.types import Prompt, Query, Sampling

QUERIES = [Query(Prompt("a cat", "cat"), 1), Query(Prompt("the dog"), 2)]
STEPS = Sampling(steps=2, guidance=3.0)
SAVED = ("SD 2", "SD inpaint, 9 channels", "SDXL refiner", "LCM", "SDXL, clip skip")
"""Kinds whose files hold what others' do not."""


@functools.cache
def subject_of(name: str) -> UNetSubject:
    kind = PIPELINES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return adopt(kind.make(), name, **kind.options)


def assert_drawn_as_by_itself(subject: UNetSubject, sampling: Sampling, **options: Any) -> None:
    """To rounding, which guidance and the sampler make larger than that of one pass."""
    latents, pictures = drawn_by_itself(subject.pipeline, QUERIES, subject.latent_shape, sampling, **options)
    ours = subject.sample(QUERIES, sampling)
    torch.testing.assert_close(ours, latents, atol=2e-5 * float(latents.abs().max()), rtol=0)
    torch.testing.assert_close(subject.generate(QUERIES, sampling), pictures, atol=2e-6, rtol=0)
    assert float((ours[0] - ours[1]).abs().max()) > 1e-2  # prompts and seeds reach it


@pytest.mark.slow
@pytest.mark.parametrize("name", PIPELINES)
def test_latents_and_pictures_are_the_pipelines_own(name):
    subject, kind = subject_of(name), PIPELINES[name]
    assert_drawn_as_by_itself(subject, kind.sampling, **kind.options)
    if kind.sampling.guidance > 1:  # and the prompt matters to it
        other = subject.sample([Query(Prompt("red"), q.seed) for q in QUERIES], kind.sampling)
        assert not torch.allclose(other, subject.sample(QUERIES, kind.sampling), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SD", "SDXL", "SD inpaint, 9 channels", "LCM"])
def test_pictures_of_another_size_are_the_pipelines_own_and_the_size_ends_with_its_block(name):
    subject, kind = subject_of(name), PIPELINES[name]
    own, told = subject.picture_size, subject.conventions()
    height, width = own[0] + 8, own[1] - 8
    with subject.sized(height, width):
        assert subject.generate(QUERIES[:1], kind.sampling).shape == (1, 3, height, width)
        assert subject.conventions() == told | {"picture_size": [height, width]}
        assert_drawn_as_by_itself(subject, kind.sampling, **kind.options)
        with pytest.raises(ValueError, match="multiples of 8"):
            subject.picture_size = (height + 1, width)
    assert (subject.picture_size, subject.conventions()) == (own, told)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAVED)
def test_a_tap_that_only_looks_changes_no_bit_and_what_is_saved_loads(name, tmp_path):
    subject, kind = subject_of(name), PIPELINES[name]
    before, seen = subject.sample(QUERIES, kind.sampling), []
    sites = [subject.sites(role)[0] for role in subject.roles() if subject.sites(role)[0].side != "weight"]
    with tap(subject, {site: lambda x, moment: seen.append(x) for site in sites}):
        assert torch.equal(subject.sample(QUERIES, kind.sampling), before)
    assert len(seen) >= len(sites)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        again: Any = load(save_model(subject, tmp_path), **kind.options)
    assert again.weight_hash() == subject.weight_hash()
    assert torch.equal(again.sample(QUERIES, kind.sampling), before)


def test_what_a_pipeline_says_of_no_prompt_is_part_of_how_it_reads():
    subject = tiny_sdxl()
    usual, stamp = how_it_reads(subject), subject.stamp()
    before = subject.sample(QUERIES, STEPS)
    subject.pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    assert not torch.equal(subject.sample(QUERIES, STEPS), before)
    assert how_it_reads(subject) != usual and subject.stamp() != stamp
    subject.pipeline.register_to_config(force_zeros_for_empty_prompt=True)
    assert how_it_reads(subject) == usual and subject.stamp() == stamp


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SD inpaint, 9 channels", "StableDiffusionInpaintPipeline paints in, .* its mask covers everything"),
        ("SDXL img2img", "StableDiffusionXLImg2ImgPipeline holds a text-to-image model and is asked as one"),
        ("SDXL refiner", "has no text_encoder beside text_encoder_2, as a refiner has not"),
    ],
)
def test_a_class_that_is_for_something_else_says_what_it_is_asked(name, said):
    with pytest.warns(UserWarning, match=said):
        adopt(PIPELINES[name].make(), name)


def test_a_mask_over_everything_and_the_empty_picture_reach_the_denoiser_and_nothing_else_does():
    subject = subject_of("SD inpaint, 9 channels")
    (site,), seen = subject.sites("denoiser_in"), []
    with tap(subject, {site: lambda x, moment: seen.append(x)}):
        subject.sample(QUERIES, Sampling(steps=1, guidance=3.0))
    grey = subject.latents(torch.full((1, 3, *subject.picture_size), 0.5))
    assert seen[0].shape == (4, 9, 8, 8) and torch.equal(seen[0][:, 4:5], torch.ones(4, 1, 8, 8))
    assert torch.equal(seen[0][:, 5:], grey.expand(4, -1, -1, -1))
    assert torch.equal(subject.seen_latents(seen[0]), seen[0][:, :4])
    made = collect(subject, [q.prompt for q in QUERIES], 2, Sampling(steps=2), seed=0)
    assert made.inputs.shape[1:] == subject.latent_shape and null_predictions(subject, made).shape == made.inputs.shape


def test_a_refiner_is_told_another_score_without_a_prompt():
    subject = subject_of("SDXL refiner")
    told: list[Any] = []
    embedding = subject.components["unet"].get_submodule("add_time_proj")
    handle = embedding.register_forward_hook(lambda _m, inputs, _out: told.append(inputs[0].view(-1, 5)))
    subject.sample(QUERIES[:1], Sampling(steps=1, guidance=3.0))
    handle.remove()
    assert told[0].tolist() == [[16, 16, 0, 0, 2.5], [16, 16, 0, 0, 6.0]]


def test_a_small_autoencoder_without_a_distribution_makes_latents_and_pictures():
    pipeline = tiny_sd().pipeline
    pipeline.vae = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1), latent_channels=4, upsampling_scaling_factor=2,
    ).eval()  # fmt: skip
    subject = adopt(pipeline, "small")
    assert_drawn_as_by_itself(subject, Sampling(steps=2, guidance=3.0))
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(subject.latents(pictures), pipeline.vae.encode(pictures * 2 - 1)[0])


def configured(kind: type, **more: Any) -> Any:
    takes = inspect.signature(kind.__init__).parameters
    options = {**NOISY, "clip_sample": False, **more}
    return kind(**{name: value for name, value in options.items() if name in takes})


SCHEDULERS = {
    **{name: (name, {}) for name in SCHEDULES if not name.startswith("Flow")},
    "sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    "Euler, zero SNR": ("EulerDiscreteScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    "velocity": ("UniPCMultistepScheduler", {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}),
}


@pytest.fixture(scope="module")
def plain() -> UNetSubject:
    return tiny_sd()


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_takes_the_steps_that_the_pipeline_takes(plain, name):
    kind, options = SCHEDULERS[name]
    plain.pipeline.scheduler = configured(getattr(diffusers, kind), **options)
    assert_drawn_as_by_itself(plain, Sampling(steps=4, guidance=3.0))


def test_every_scheduler_that_a_pipeline_takes_is_known_or_refused_by_name(plain):
    plain.pipeline.scheduler = diffusers.DDIMScheduler()
    names = {kind.__name__ for kind in plain.pipeline.scheduler.compatibles}
    assert len(names) > 10 and names <= {*SCHEDULES, *REFUSED}


@pytest.mark.parametrize("name", REFUSED)
def test_a_scheduler_that_cannot_be_followed_is_refused_with_the_mend(name):
    with pytest.raises(ValueError, match=rf"the scheduler {name} .*give the pipeline"):
        schedule_of(type(name, (), {})())
