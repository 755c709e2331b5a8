"""The schedules of the schedulers that diffusers has; which it is follows from a scheduler's class and configuration."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from concept_probe.families.diffusion.flow import Flow
from concept_probe.families.diffusion.schedule import Level, NoiseSchedule, StepLayout
from concept_probe.registry import look_up


def schedule_of(scheduler: Any) -> NoiseSchedule:
    """The schedule of a diffusers scheduler. Raises UnknownName for a class that is not in SCHEDULES, ValueError for one
    that can't be followed (see REFUSED)."""
    kind = type(scheduler).__name__
    if kind in REFUSED:
        raise ValueError(f"the scheduler {kind} {REFUSED[kind]}")
    return look_up(SCHEDULES, type(scheduler).__name__, "scheduler class", "SCHEDULES lists them")(scheduler)


def with_steps(scheduler: Any, steps: StepLayout, device: torch.device) -> NoiseSchedule:
    """The schedule of a copy of the scheduler, with `steps` laid out."""
    schedule = schedule_of(copy.deepcopy(scheduler))
    try:
        schedule.set_steps(steps, device)
    except (ValueError, TypeError, IndexError) as problem:
        raise ValueError(
            f"{type(scheduler).__name__} can't lay out {steps.count} denoising steps: {problem}; take another number of steps, "
            "or another scheduler"
        ) from problem
    return schedule


def _of_share(share: Tensor) -> Level:
    """Levels whose squares add up to 1, from the share of the picture in the variance (arXiv 2006.11239, eq. 4)."""
    return Level(share.sqrt(), (1 - share).sqrt())


def _of_ratio(sigma: Tensor) -> Level:
    """Levels whose squares add up to 1, from their ratio σ = noise / signal."""
    return _of_share(1 / (1 + sigma.float().square()))


class VariancePreserving(NoiseSchedule):
    """The denoiser was trained with signal² + noise² = 1, at whole timesteps."""

    def __init__(self, scheduler: Any) -> None:
        super().__init__(scheduler, scheduler.config.prediction_type)
        if self.prediction == "flow_prediction":
            raise ValueError(f"{type(scheduler).__name__} predicts a flow without flow sigmas: set use_flow_sigmas")

    @final
    def set_steps(self, steps: StepLayout, device: torch.device) -> None:
        self.scheduler.set_timesteps(steps.count, device=device)
        self._refuse_noise_from_noise()

    def _refuse_noise_from_noise(self) -> None:
        """Raise ValueError where a step starts without a picture from a prediction of noise: it divides by 0."""
        if self.prediction == "epsilon" and not bool(self.level_at(self.timesteps[:1].cpu()).signal.all()):
            raise ValueError(
                f"{type(self.scheduler).__name__} begins at noise alone (rescale_betas_zero_snr with timestep_spacing "
                f"{self.scheduler.config.get('timestep_spacing')!r}) and the denoiser predicts noise, of which no picture can be told: "
                "set prediction_type to 'v_prediction' where the model predicts that, or rescale_betas_zero_snr to False"
            )

    @property
    @final
    def starting_std(self) -> Tensor | float:
        return self.scheduler.init_noise_sigma

    @final
    def level_at(self, timesteps: Tensor) -> Level:
        return _of_share(self.scheduler.alphas_cumprod.to(timesteps.device, torch.float32)[timesteps.long()])

    @final
    def drawn(self, index: Tensor) -> Tensor:
        return index

    @final
    def cleanest(self) -> Level:
        return _of_share(self.scheduler.alphas_cumprod[0].float())

    @final
    def scaled(self, latents: Tensor, step: int) -> Tensor:
        return self.scheduler.scale_model_input(latents, self.timesteps[step])


@final
class ByTimestep(VariancePreserving):
    """The sampler finds its levels by the timestep, and keeps latents as the denoiser sees them."""

    @property
    def sigmas(self) -> Tensor:
        share = self.scheduler.alphas_cumprod.float()
        at = self.timesteps.to(share.device).long()
        share = share[at.clamp(0, len(share) - 1)]
        known = (at >= 0) & (at < self.train_timesteps)  # PNDM's warm-up may look beyond the last
        return ((1 - share) / share).sqrt().where(known, torch.nan)

    def begin_at(self, step: int) -> None:
        """It finds its place by the timestep too."""

    def level(self, step: int) -> Level:
        return self.level_at(self.timesteps[step].cpu())

    def unscaled(self, x: Tensor, step: int) -> Tensor:
        return x


@final
class BySigma(VariancePreserving):
    """The sampler has a σ = noise / signal of its own for each step, and keeps latents as the denoiser sees them."""

    @property
    def sigmas(self) -> Tensor:
        return self.scheduler.sigmas[: len(self.timesteps)].float()

    def begin_at(self, step: int) -> None:
        self.scheduler.set_begin_index(step)

    def level(self, step: int) -> Level:
        return _of_ratio(self.scheduler.sigmas[step])

    def unscaled(self, x: Tensor, step: int) -> Tensor:
        return x


@final
class SigmaSpace(VariancePreserving):
    """The sampler keeps latents as x₀ + σ e; the denoiser sees them divided by √(1 + σ²)."""

    def __init__(self, scheduler: Any, halfway: str = "", lag: int = 0) -> None:
        """`halfway`: the attribute that holds the σ of every second step, of samplers that look between two steps; there
        step i has the σ at i - `lag`."""
        super().__init__(scheduler)
        self.halfway, self.lag = halfway, lag

    @property
    def sigmas(self) -> Tensor:
        return torch.stack([self._sigma(step) for step in range(len(self.timesteps))]).float()

    def begin_at(self, step: int) -> None:
        self.scheduler.set_begin_index(step)

    def level(self, step: int) -> Level:
        return _of_ratio(self._sigma(step))

    def unscaled(self, x: Tensor, step: int) -> Tensor:
        return x * (self._sigma(step).to(x) ** 2 + 1) ** 0.5

    def _sigma(self, step: int) -> Tensor:
        if self.halfway and step % 2:
            return getattr(self.scheduler, self.halfway)[step - self.lag]
        return self.scheduler.sigmas[step]


@final
class SamplerOnly(NoiseSchedule):
    """A sampler whose levels in the units of this arithmetic aren't known: it draws pictures, as its pipeline does, and
    whatever asks how much noise there is in them is refused."""

    def __init__(self, scheduler: Any) -> None:
        super().__init__(scheduler, scheduler.config.get("prediction_type", "epsilon"))

    def set_steps(self, steps: StepLayout, device: torch.device) -> None:
        self.scheduler.set_timesteps(steps.count, device=device)

    @property
    def starting_std(self) -> Tensor | float:
        return self.scheduler.init_noise_sigma

    @property
    def sigmas(self) -> Tensor:
        """Its own count of noise, which is not in the units of this arithmetic."""
        own = getattr(self.scheduler, "sigmas", None)
        own = self.scheduler.betas / self.scheduler.alphas if own is None else own
        return own[: len(self.timesteps)].float()

    def begin_at(self, step: int) -> None:
        self.scheduler.set_begin_index(step)

    def level(self, step: int) -> Level:
        raise self._unknown()

    def level_at(self, timesteps: Tensor) -> Level:
        raise self._unknown()

    def drawn(self, index: Tensor) -> Tensor:
        raise self._unknown()

    def cleanest(self) -> Level:
        raise self._unknown()

    def scaled(self, latents: Tensor, step: int) -> Tensor:
        return self.scheduler.scale_model_input(latents, self.timesteps[step])

    def unscaled(self, x: Tensor, step: int) -> Tensor:
        raise self._unknown()

    def _unknown(self) -> ValueError:
        name = type(self.scheduler).__name__
        return ValueError(
            f"how much noise {name} has at a step is not known here, so it draws pictures, and nothing learns from them or "
            "inverts them; give the pipeline another scheduler (SCHEDULES lists them)"
        )


def _solver(scheduler: Any) -> NoiseSchedule:
    return Flow(scheduler) if scheduler.config.get("use_flow_sigmas") else BySigma(scheduler)


SCHEDULES: dict[str, Callable[[Any], NoiseSchedule]] = {
    "DDIMParallelScheduler": ByTimestep,
    "DDIMScheduler": ByTimestep,
    "DDPMParallelScheduler": ByTimestep,
    "DDPMScheduler": ByTimestep,
    "LCMScheduler": ByTimestep,
    "PNDMScheduler": ByTimestep,
    "TCDScheduler": ByTimestep,
    "DEISMultistepScheduler": _solver,
    "DPMSolverMultistepScheduler": _solver,
    "DPMSolverSinglestepScheduler": _solver,
    "SASolverScheduler": _solver,
    "UniPCMultistepScheduler": _solver,
    "EulerAncestralDiscreteScheduler": SigmaSpace,
    "EulerDiscreteScheduler": SigmaSpace,
    "HeunDiscreteScheduler": SigmaSpace,
    "KDPM2AncestralDiscreteScheduler": partial(SigmaSpace, halfway="sigmas_interpol", lag=1),
    "KDPM2DiscreteScheduler": partial(SigmaSpace, halfway="sigmas_interpol"),
    "LMSDiscreteScheduler": SigmaSpace,
    "EDMDPMSolverMultistepScheduler": SamplerOnly,
    "EDMEulerScheduler": SamplerOnly,
    "IPNDMScheduler": SamplerOnly,
    "FlowMatchEulerDiscreteScheduler": Flow,
    "FlowMatchHeunDiscreteScheduler": Flow,
}
"""Class of a diffusers scheduler to its schedule."""

_ONE_SOURCE = (
    "draws its noise for a whole batch from one source of its own, so a picture would depend on those beside it and on no "
    "seed; give the pipeline DPMSolverMultistepScheduler with algorithm_type 'sde-dpmsolver++' instead"
)
_BACKWARDS = "goes from pictures to noise; give the pipeline the scheduler that it draws pictures with"
REFUSED: dict[str, str] = {
    "CosineDPMSolverMultistepScheduler": _ONE_SOURCE,
    "DPMSolverSDEScheduler": _ONE_SOURCE,
    "DDIMInverseScheduler": _BACKWARDS,
    "DPMSolverMultistepInverseScheduler": _BACKWARDS,
}
"""Class of a diffusers scheduler to why no picture can be drawn with it here, and the mend."""
