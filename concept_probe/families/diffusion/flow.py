"""The schedule of rectified flows: a picture is mixed with noise along a straight line, and the denoiser predicts its way."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from concept_probe.families.diffusion.schedule import Level, NoiseSchedule


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

    def set_steps(self, steps: int, patches: int, device: torch.device) -> None:
        shift = {"mu": _shift(self.scheduler.config, patches)} if self._by_size else {}
        self.scheduler.set_timesteps(steps, device=device, **shift)

    @property
    def starting_std(self) -> Tensor | float:
        return 1.0

    def begin_at(self, step: int) -> None:
        self.scheduler.set_begin_index(step)

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


def _shift(config: Any, patches: int) -> float:
    """μ, a linear function of the number of patches (arXiv 2403.03206, section 5.3.2, as FLUX lays it out)."""
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return low + (patches - few) * (high - low) / (many - few)
