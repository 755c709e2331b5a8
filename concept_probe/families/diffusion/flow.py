"""The schedule of rectified flows: a picture is mixed with noise along a straight line, and the denoiser predicts its way."""

from __future__ import annotations

import inspect
from typing import Any, final

import torch
from torch import Tensor

from concept_probe.families.diffusion.schedule import Level, NoiseSchedule, StepLayout


def refuse_unsaid_flow(schedule: NoiseSchedule, name: str, denoiser: str) -> None:
    """Raise ValueError for a schedule of flows where the scheduler's configuration doesn't say that flows are predicted."""
    scheduler = schedule.scheduler
    if schedule.prediction == "flow_prediction" and _told(scheduler) is None:
        raise ValueError(
            f"{name}: {type(scheduler).__name__} is made for denoisers that predict a flow, and nothing says that this "
            f"{denoiser} does; give the pipeline a scheduler of its own kind (DDIMScheduler, say), or, where it was trained to "
            'predict flows, say so: scheduler.register_to_config(prediction_type="flow_prediction")'
        )


def _told(scheduler: Any) -> str | None:
    """What a scheduler's configuration says that the denoiser predicts."""
    return scheduler.config.get("prediction_type")


@final
class Flow(NoiseSchedule):
    """signal = 1 - σ and noise = σ (rectified flow, arXiv 2209.03003, 2403.03206); the denoiser is told 1000 σ or so."""

    def __init__(self, scheduler: Any) -> None:
        super().__init__(scheduler, "flow_prediction")
        if _told(scheduler) not in (None, "flow_prediction"):
            raise ValueError(
                f"{type(scheduler).__name__} draws along flows, and its configuration says prediction_type "
                f"{scheduler.config.prediction_type!r}; give the pipeline a scheduler for what its denoiser predicts"
            )
        if scheduler.config.get("invert_sigmas"):
            raise ValueError(f"{type(scheduler).__name__} counts its sigmas up (invert_sigmas), which is not supported")

    def set_steps(self, steps: StepLayout, device: torch.device) -> None:
        config, name = self.scheduler.config, type(self.scheduler).__name__
        more: dict[str, Any] = {}
        if self._by_size:
            if steps.shift is None:
                raise ValueError(
                    f"{name} shifts its sigmas by the picture's size (use_dynamic_shifting), which pipelines of this class do "
                    "not tell it; give it a fixed `shift`"
                )
            more["mu"] = steps.shift
        if steps.sigmas is None or config.get("use_flow_sigmas"):
            self.scheduler.set_timesteps(steps.count, device=device, **more)
            return
        if "sigmas" not in inspect.signature(self.scheduler.set_timesteps).parameters:
            raise ValueError(
                f"{name} takes no sigmas, which pipelines of this class lay out; give it another scheduler"
            )
        self.scheduler.set_timesteps(sigmas=list(steps.sigmas), device=device, **more)

    @property
    def starting_std(self) -> Tensor | float:
        return 1.0

    def begin_at(self, step: int) -> None:
        self.scheduler.set_begin_index(step)

    @property
    def sigmas(self) -> Tensor:
        return self.scheduler.sigmas[: len(self.timesteps)].float()

    def level(self, step: int) -> Level:
        sigma = self.scheduler.sigmas[step].float()
        return Level(1 - sigma, sigma)

    def level_at(self, timesteps: Tensor) -> Level:
        sigma = timesteps.float() / self.train_timesteps
        return Level(1 - sigma, sigma)

    def drawn(self, index: Tensor) -> Tensor:
        """Shifted towards noise as the scheduler is configured, but for a shift by the picture's size."""
        sigma = (index + 1) / self.train_timesteps
        config = self.scheduler.config
        shift = 1.0 if self._by_size else config.get("shift", config.get("flow_shift", 1.0))
        return shift * sigma / (1 + (shift - 1) * sigma) * self.train_timesteps

    def cleanest(self) -> Level:
        return Level(torch.ones(()), torch.zeros(()))

    def scaled(self, latents: Tensor, step: int) -> Tensor:
        return latents

    def unscaled(self, x: Tensor, step: int) -> Tensor:
        return x

    @property
    def _by_size(self) -> bool:
        """Whether the levels depend on the picture's size."""
        return bool(self.scheduler.config.get("use_dynamic_shifting"))
