"""One batch on its way from noise to pictures, and what may act on it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from concept_probe.families.diffusion.schedule import Level, NoiseSchedule


@dataclass
class Trajectory:
    """One batch on its way from noise to pictures: its own schedule, and a random source per row.

    A scheduler keeps state between steps, so every trajectory has a copy; a stochastic one draws each row's
    noise from that row's source, so neighbours in the batch change nothing.
    """

    schedule: NoiseSchedule
    """Its own, with steps set."""
    latents: Tensor
    """(b, ...), in the scheduler's units"""
    sources: list[torch.Generator]
    options: dict[str, Any]
    """What the scheduler's steps take besides."""
    first: int = 0
    """The step that it starts with."""

    @classmethod
    def start(
        cls, schedule: NoiseSchedule, seeds: Sequence[int], shape: Sequence[int], *, device: torch.device,
        dtype: torch.dtype,
    ) -> Trajectory:  # fmt: skip
        """Noise of `shape` (that of one picture's latents) for each seed, drawn where every device draws the same.

        `schedule` is the trajectory's alone, with its steps set.
        """
        sources = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        # Drawn in float32 whatever the dtype, so that a seed names the same noise in every precision.
        noise = torch.stack([torch.randn(tuple(shape), generator=source) for source in sources]).to(device, dtype)
        takes = inspect.signature(schedule.scheduler.step).parameters
        # As pipelines do it: each has an eta, 0 where nobody asks for another, and gives it to what takes one.
        options: dict[str, Any] = {"generator": sources} if "generator" in takes else {}
        options |= {"eta": 0.0} if "eta" in takes else {}
        return cls(schedule, noise * schedule.starting_std, sources, options)

    @property
    def timesteps(self) -> Tensor:
        """(s,): the timestep that the denoiser is told in each pass."""
        return self.schedule.timesteps

    @property
    def sigmas(self) -> Tensor:
        """(s,): the noise in what the denoiser sees in each pass, see `NoiseSchedule.sigmas`."""
        return self.schedule.sigmas

    def starts_at(self, step: int) -> None:
        """Leave out the steps before `step`."""
        self.first = step
        self.schedule.begin_at(step)

    def level(self, step: int) -> Level:
        """How much picture and noise there is in what the denoiser sees at `step`."""
        return self.schedule.level(step)

    def model_input(self, step: int) -> Tensor:
        """The latents (b, ...) as the denoiser sees them at `step`, which is under way."""
        return self.schedule.scaled(self.latents, step)

    def noised(self, clean: Tensor, noise: Tensor, step: int) -> Tensor:
        """`clean` (b, ...) with as much of `noise` as latents hold before `step`, in the scheduler's units."""
        return self.schedule.unscaled(self.schedule.noised(clean, noise, self.level(step)), step)

    def advance(self, prediction: Tensor, step: int) -> None:
        """Take one step along `prediction` (b, ...)."""
        dtype = self.latents.dtype
        scheduler = self.schedule.scheduler
        try:
            made = scheduler.step(prediction, self.timesteps[step], self.latents, **self.options, return_dict=False)
        except (ValueError, TypeError, IndexError) as problem:
            raise ValueError(
                f"{type(scheduler).__name__} fails in step {step} of {len(self.timesteps)}: {problem}; take another number of "
                "steps, or another scheduler"
            ) from problem
        self.latents = made[0].to(dtype)

    def follow(self, hooks: Sequence[SamplingHook], step: int, prediction: Tensor) -> None:
        """Take one step along `prediction`, or along what `hooks` replace it by, and do what they do after it."""
        for hook in hooks:
            if hook.replace_prediction:
                prediction = hook.replace_prediction(self, step, prediction)
        self.advance(prediction, step)
        for hook in hooks:
            if hook.after_step:
                hook.after_step(self, step)


@dataclass(frozen=True)
class SamplingHook:
    """What acts on a trajectory besides the denoiser: where it starts, which prediction is followed, what comes after.

    Row i of every batch (b, ...) is the picture of query `rows[i]` of those that were asked.
    """

    start: Callable[[Trajectory, Sequence[int]], None] | None = None
    """(trajectory, rows): may replace its `latents`, and leave out steps by `starts_at`."""
    replace_prediction: Callable[[Trajectory, int, Tensor], Tensor] | None = None
    """(trajectory, step, prediction (b, ...), guidance included): the prediction that is followed."""
    after_step: Callable[[Trajectory, int], None] | None = None
    """(trajectory, step): may replace its `latents` when a step has been made."""
