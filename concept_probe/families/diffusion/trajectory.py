"""The arithmetic of diffusion that a pipeline does around its denoiser."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Trajectory:
    """One batch on its way from noise to a picture: its own scheduler, and a random source per row.

    A scheduler keeps state between steps, so every trajectory has a copy; a stochastic one draws each row's
    noise from that row's source, so neighbours in the batch change nothing.
    """

    scheduler: Any
    latents: Tensor
    """(b, c, h, w)"""
    sources: list[torch.Generator]
    options: dict[str, Any]
    first: int = 0
    """The step that it starts with."""

    def starts_at(self, step: int) -> None:
        """Leave out the steps before `step`."""
        self.first = step
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(step)

    def noised(self, clean: Tensor, noise: Tensor, step: int) -> Tensor:
        """`clean` (b, c, h, w) with as much of `noise` as latents hold before `step`, in the scheduler's scaling."""
        at = self.timesteps[step].repeat(len(clean))
        return self.scheduler.add_noise(clean, noise, at).to(clean.dtype)

    @classmethod
    def start(
        cls,
        scheduler: Any,
        seeds: Sequence[int],
        shape: Sequence[int],
        *,
        steps: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Trajectory:
        """Noise of `shape` (c, h, w) for each seed, drawn where every device draws the same."""
        scheduler = copy.deepcopy(scheduler)
        scheduler.set_timesteps(steps, device=device)
        sources = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        # Drawn in float32 whatever the dtype, so that a seed names the same noise in every precision.
        noise = torch.stack([torch.randn(tuple(shape), generator=source) for source in sources]).to(device, dtype)
        takes = inspect.signature(scheduler.step).parameters
        options = {"generator": sources} if "generator" in takes else {}
        return cls(scheduler, noise * scheduler.init_noise_sigma, sources, options)

    @property
    def timesteps(self) -> Tensor:
        return self.scheduler.timesteps

    def model_input(self, timestep: Tensor) -> Tensor:
        return self.scheduler.scale_model_input(self.latents, timestep)

    def signal(self, step: int) -> Tensor:
        """The share a of the picture's variance in what the denoiser sees at `step`, sqrt(a) x0 + sqrt(1 - a) e."""
        if hasattr(self.scheduler, "sigmas"):
            return 1 / (1 + self.scheduler.sigmas[step].float().square())
        return self.scheduler.alphas_cumprod[self.timesteps[step].long().cpu()].float()

    def advance(self, prediction: Tensor, timestep: Tensor) -> None:
        """Take one step along `prediction` (b, c, h, w)."""
        dtype = self.latents.dtype
        self.latents = self.scheduler.step(prediction, timestep, self.latents, **self.options, return_dict=False)[0]
        self.latents = self.latents.to(dtype)

    def follow(self, hooks: Sequence[SamplingHook], step: int, prediction: Tensor, timestep: Tensor) -> None:
        """Take one step along `prediction`, or along what `hooks` replace it by, and do what they do after it."""
        for hook in hooks:
            if hook.replace_prediction:
                prediction = hook.replace_prediction(self, step, prediction)
        self.advance(prediction, timestep)
        for hook in hooks:
            if hook.after_step:
                hook.after_step(self, step)


@dataclass(frozen=True)
class SamplingHook:
    """What acts on a trajectory besides the denoiser: where it starts, which prediction is followed, what comes after.

    Row i of every batch (b, c, h, w) is the picture of query `rows[i]` of those that were asked.
    """

    start: Callable[[Trajectory, Sequence[int]], None] | None = None
    """(trajectory, rows): may replace its `latents`, and leave out steps by `starts_at`."""
    replace_prediction: Callable[[Trajectory, int, Tensor], Tensor] | None = None
    """(trajectory, step, prediction (b, c, h, w), guidance included): the prediction that is followed."""
    after_step: Callable[[Trajectory, int], None] | None = None
    """(trajectory, step): may replace its `latents` when a step has been made."""


def guided(prediction: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598, eq. 6) of (2b, c, h, w), unconditional rows first."""
    uncond, cond = prediction.chunk(2)
    return uncond + scale * (cond - uncond)


def noisy(scheduler: Any, clean: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """`clean` (n, c, h, w) at `timesteps` (n,), and what the denoiser should say of it.

    x_t = sqrt(a) x + sqrt(1 - a) e with a the cumulative product of alphas (arXiv 2006.11239, eq. 4); the target is e,
    or v = sqrt(a) e - sqrt(1 - a) x (arXiv 2202.00512, appendix D), or x, as the scheduler's prediction type says.
    """
    kept = scheduler.alphas_cumprod.to(device=clean.device, dtype=torch.float32)[timesteps].view(-1, 1, 1, 1)
    signal, level = kept.sqrt().to(clean.dtype), (1 - kept).sqrt().to(clean.dtype)
    kind = scheduler.config.prediction_type
    targets = {"epsilon": noise, "v_prediction": signal * noise - level * clean, "sample": clean}
    if kind not in targets:
        raise ValueError(f"prediction type {kind!r} of {type(scheduler).__name__} is none of {', '.join(targets)}")
    return signal * clean + level * noise, targets[kind]
