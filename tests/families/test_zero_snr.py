"""At the last timestep of a schedule with zero terminal SNR there is noise alone, and nothing divides by the picture."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from concept_probe.attacks.latents.ddim_inversion import invert
from concept_probe.families.diffusion.schedulers import schedule_of
from concept_probe.families.diffusion.trajectory import SamplingHook
from concept_probe.types import Prompt, Query, Sampling
from tests.families.gaussian import MEAN, STD, Gaussian
from tests.families.test_schedules import BETAS


def scheduler(kind: str = "DDIMScheduler", prediction: str = "v_prediction", **more: Any) -> Any:
    options = {**BETAS, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing", **more}
    clip = {} if kind.startswith("Euler") else {"clip_sample": False}
    return getattr(diffusers, kind)(**options, **clip, prediction_type=prediction)


def test_picture_and_noise_of_a_velocity_are_told_apart_also_there():
    schedule = schedule_of(scheduler())
    level = schedule.level_at(torch.tensor([999, 998]))
    assert level.signal[0] == 0 and level.noise[0] == 1 and level.signal[1] > 0
    x0, noise = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(0))
    x = schedule.noised(x0, noise, level)
    assert torch.equal(x[0], noise[0])
    found = schedule.x0_and_noise(x, schedule.prediction_of(x0, noise, level), level)
    torch.testing.assert_close(found, (x0, noise), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(schedule.noise_in(x, x0, level), noise)


def test_a_trajectory_and_its_inversion_are_finite_and_end_at_pictures():
    subject, clean = Gaussian(scheduler()), MEAN + STD * torch.randn(4, 512, generator=torch.Generator().manual_seed(3))
    queries, sampling = [Query(Prompt(""), i) for i in range(4)], Sampling(steps=50)
    drawn = subject.sample(queries, sampling)
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.06) and float(drawn.std()) == pytest.approx(STD, rel=0.15)

    def start(trajectory, rows):
        trajectory.latents = invert(subject, clean, trajectory, Prompt(""))

    with subject.hooked(SamplingHook(start=start)):
        again = subject.sample(queries, sampling)
    assert float((again - clean).square().mean().sqrt()) < 0.15 * STD


def test_noise_predicted_of_noise_tells_of_no_picture():
    schedule = schedule_of(scheduler(prediction="epsilon"))
    x = torch.randn(2, 5)
    with pytest.raises(ValueError, match="there is no picture in what the denoiser sees at this level"):
        schedule.x0_and_noise(x, x, schedule.level_at(torch.tensor([500, 999])))
    assert schedule.x0_and_noise(x, x, schedule.level_at(torch.tensor([500, 600])))[0].isfinite().all()


@pytest.mark.parametrize("kind", ["DDIMScheduler", "DDPMScheduler"])
def test_a_trajectory_that_would_divide_by_no_picture_is_refused_and_any_other_is_not(kind):
    query = [Query(Prompt(""))]
    with pytest.raises(
        ValueError, match=rf"{kind} begins at noise alone .*'trailing'.*prediction_type to 'v_prediction'"
    ):
        Gaussian(scheduler(kind, "epsilon")).sample(query, Sampling(steps=2))
    for one in (
        scheduler(kind),
        scheduler(kind, "epsilon", timestep_spacing="leading"),
        scheduler("EulerDiscreteScheduler"),
    ):
        assert Gaussian(one).sample(query, Sampling(steps=2)).isfinite().all()
