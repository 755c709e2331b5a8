"""Schedules: what is mixed can be told apart, what is inverted comes back, and every sampler starts where it should."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from concept_probe.attacks.latents.ddim_inversion import invert
from concept_probe.families import adopt
from concept_probe.families.diffusion.schedulers import SCHEDULES, SamplerOnly, schedule_of
from concept_probe.families.diffusion.trajectory import SamplingHook
from concept_probe.registry import UnknownName
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt, Query, Sampling
from tests.families.gaussian import MEAN, STD, Gaussian

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CLIPPING = (
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "LCMScheduler",
    "TCDScheduler",
)


def options(name: str) -> dict[str, Any]:
    if name.startswith("Flow"):
        return {}
    return {**BETAS, "clip_sample": False} if name in CLIPPING else BETAS


MADE: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, options(name)) for name, kind in SCHEDULES.items() if kind is not SamplerOnly},
    "karras": ("DPMSolverMultistepScheduler", {**BETAS, "use_karras_sigmas": True}),
    "solver of a flow": (
        "DPMSolverMultistepScheduler",
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
    ),
    "UniPC of a flow": (
        "UniPCMultistepScheduler",
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
    ),
    "shifted flow": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    "flow shifted by size": ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}),
}
JUMPING = ("LCMScheduler", "TCDScheduler")
"""Samplers that go to a picture and back in every step: from a mean of pictures they make none of those."""
RETURN = {
    "DDIMScheduler": 0.1,
    "EulerDiscreteScheduler": 0.1,
    "DPMSolverMultistepScheduler": 0.1,
    "UniPCMultistepScheduler": 0.1,
    "FlowMatchEulerDiscreteScheduler": 0.05,
    "shifted flow": 0.05,
    "flow shifted by size": 0.05,
}
"""How far off a picture may come back from 50 steps each way, as a share of the pictures' standard deviation."""


def made(name: str, **more: Any) -> Any:
    kind, configured = MADE[name]
    return getattr(diffusers, kind)(**{**configured, **more})


def kinds(name: str) -> tuple[str, ...]:
    flow = schedule_of(made(name)).prediction == "flow_prediction"
    return ("flow_prediction",) if flow else ("epsilon", "v_prediction", "sample")


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_picture_and_noise_are_told_apart_by_every_kind_of_prediction(name):
    x0, noise = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    for kind in kinds(name):
        scheduler = made(name) if kind == "flow_prediction" else made(name, prediction_type=kind)
        subject = Gaussian(scheduler)
        trajectory = subject.trajectory([0], 6)
        drawn = subject.schedule.level_at(subject.schedule.drawn(torch.tensor([0, 500, 999])))
        for level in (drawn, *(trajectory.level(step) for step in range(6))):
            x = trajectory.schedule.noised(x0, noise, level)
            prediction = trajectory.schedule.prediction_of(x0, noise, level)
            for found, wanted in zip(trajectory.schedule.x0_and_noise(x, prediction, level), (x0, noise), strict=True):
                torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(trajectory.schedule.noise_in(x, x0, level), noise, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MADE)
def test_levels_are_those_that_a_trajectory_meets(name):
    """Of exact predictions the denoiser's input has, at every step, the mean and the spread of its level."""
    subject, met = Gaussian(made(name)), []

    def look(trajectory, step, prediction):
        x = trajectory.model_input(step)
        back = trajectory.schedule.unscaled(x, step)
        torch.testing.assert_close(back, trajectory.latents, atol=1e-4, rtol=1e-4)
        level = trajectory.level(step)
        ratio = level.noise if "flow" in trajectory.schedule.prediction else level.noise / level.signal
        torch.testing.assert_close(trajectory.sigmas[step], ratio, atol=1e-5, rtol=1e-3)
        met.append((step, float(x.mean()), float(x.std()), level))
        return prediction

    with subject.hooked(SamplingHook(replace_prediction=look)):
        latents = subject.sample([Query(Prompt("x"), i) for i in range(4)], Sampling(steps=50))
    assert len(met) >= 50
    if name in JUMPING:
        return
    for step, mean, std, level in met:
        s, n = float(level.signal), float(level.noise)
        assert mean == pytest.approx(s * MEAN, abs=0.05), step
        assert std == pytest.approx((s**2 * STD**2 + n**2) ** 0.5, rel=0.15), step
    assert float(latents.mean()) == pytest.approx(MEAN, abs=0.06)
    assert float(latents.std()) == pytest.approx(STD, rel=0.15)


@pytest.mark.parametrize("name", RETURN)
def test_what_is_inverted_starts_as_fresh_noise_does_and_comes_back(name):
    subject, errors = Gaussian(made(name)), []
    clean = MEAN + STD * torch.randn(4, 512, generator=torch.Generator().manual_seed(3))
    starts = []

    def start(trajectory, rows):
        fresh = trajectory.latents.std()
        trajectory.latents = invert(subject, clean, trajectory, Prompt(""))
        starts.append(float(trajectory.latents.std() / fresh))

    for steps in (25, 50):
        with subject.hooked(SamplingHook(start=start)):
            again = subject.sample([Query(Prompt(""), i) for i in range(4)], Sampling(steps=steps))
        errors.append(float((again - clean).square().mean().sqrt() / STD))
    assert starts[1] == pytest.approx(1, rel=0.06)
    assert errors[1] < errors[0] and errors[1] < RETURN[name]


def test_an_unknown_scheduler_is_refused_with_those_that_are_known():
    with pytest.raises(
        UnknownName, match=r"scheduler class 'CMStochasticIterativeScheduler' not found; nearest: .*SCHEDULES lists"
    ):
        schedule_of(diffusers.CMStochasticIterativeScheduler())


def test_a_flow_needs_the_sigmas_of_one():
    with pytest.raises(ValueError, match="predicts a flow without flow sigmas: set use_flow_sigmas"):
        schedule_of(diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction"))


@pytest.mark.parametrize(("name", "shift"), [("FlowMatchEulerDiscreteScheduler", 1.0), ("shifted flow", 3.0)])
def test_a_flow_is_trained_at_the_timesteps_of_its_scheduler(name, shift):
    """Those that a scheduler holds before any steps are set, the last one first."""
    scheduler = made(name)
    schedule = schedule_of(scheduler)
    torch.testing.assert_close(schedule.drawn(torch.arange(1000)).flip(0), scheduler.timesteps, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(schedule.level_at(scheduler.timesteps).noise, scheduler.sigmas[:1000])
    x0, noise = torch.randn(2, 4, 7)
    at = scheduler.timesteps[[0, 300, 700, 999]]
    wanted = scheduler.scale_noise(x0, at, noise)
    torch.testing.assert_close(schedule.noised(x0, noise, schedule.level_at(at)), wanted)


def test_a_denoiser_that_predicts_no_flow_is_not_drawn_along_one():
    subject = tiny_sd()
    own = subject.pipeline.scheduler.config
    asked = [Query(Prompt("a cat"), 0)]
    for scheduler, said in (
        (diffusers.FlowMatchEulerDiscreteScheduler(), "FlowMatchEulerDiscreteScheduler is made for .* predict a flow"),
        (diffusers.FlowMatchHeunDiscreteScheduler.from_config(own), "nothing says that this unet does"),
        (diffusers.UniPCMultistepScheduler.from_config(own, use_flow_sigmas=True), "says prediction_type 'epsilon'"),
    ):
        subject.pipeline.scheduler = scheduler
        for run in (lambda: subject.generate(asked, Sampling(steps=2)), lambda: adopt(subject.pipeline, "flow")):
            with pytest.raises(ValueError, match=said):
                run()
    subject.pipeline.scheduler = flow = diffusers.FlowMatchEulerDiscreteScheduler()
    flow.register_to_config(prediction_type="flow_prediction")
    assert adopt(subject.pipeline, "flow").generate(asked, Sampling(steps=2)).isfinite().all()
