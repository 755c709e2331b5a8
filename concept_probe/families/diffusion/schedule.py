"""How a scheduler mixes a picture with noise, and what the denoiser that was trained with it predicts of the mixture.

The denoiser sees x = signal · x₀ + noise · e at every level, whatever the scheduler; which numbers those are, and in
which units the sampler keeps its latents between steps, is the whole difference between schedules; see `schedulers`.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor

from concept_probe.registry import look_up

Prediction = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]
"""What a denoiser predicts: the noise e (arXiv 2006.11239), v = signal · e - noise · x₀ (arXiv 2202.00512, appendix D),
the picture x₀, or the flow e - x₀ (arXiv 2210.02747)."""


@dataclass(frozen=True)
class StepLayout:
    """How a pipeline asks its scheduler for the steps of a picture."""

    count: int
    sigmas: tuple[float, ...] | None = None
    """The noise of each step before any shift, where the pipeline says it; None: as the scheduler lays it out."""
    shift: float | None = None
    """μ, the shift towards noise, for schedulers that leave it to the pipeline (`use_dynamic_shifting`)."""


@dataclass(frozen=True)
class Level:
    """How much of a picture and of noise there is in what the denoiser sees: x = signal · x₀ + noise · e."""

    signal: Tensor
    """() or, one for each row, (n,); float32"""
    noise: Tensor
    """() or (n,); float32"""

    def over(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise as factors of the rows of `x` (n, ...), in its dtype."""
        shape = (-1, *[1] * (x.ndim - 1)) if self.signal.ndim else ()
        return self.signal.to(x).view(shape), self.noise.to(x).view(shape)


class NoiseSchedule(abc.ABC):
    """One scheduler's levels, and the arithmetic between picture, noise and prediction at them.

    >>> schedule = subject.schedule
    >>> level = schedule.level_at(timesteps)
    >>> x = schedule.noised(x0, noise, level)
    >>> schedule.x0_and_noise(x, schedule.prediction_of(x0, noise, level), level)  # (x0, noise)
    """

    def __init__(self, scheduler: Any, prediction: str) -> None:
        """Raises UnknownName for a type of prediction that this arithmetic does not know."""
        self.scheduler = scheduler
        self.prediction = prediction
        known = dict.fromkeys(get_args(Prediction))
        look_up(known, prediction, "type of prediction", f"{type(scheduler).__name__} is configured so")

    @property
    def train_timesteps(self) -> int:
        """How many timesteps the denoiser was trained on, from which they are counted down."""
        return self.scheduler.config.num_train_timesteps

    @property
    def timesteps(self) -> Tensor:
        """(s,): the timestep that the denoiser is told in each pass, once steps have been set; a step may take several."""
        return self.scheduler.timesteps

    @property
    @abc.abstractmethod
    def sigmas(self) -> Tensor:
        """(s,), float32: the noise in what the denoiser sees in each pass, σ = noise / signal, or, of flows, their time
        0..1, σ = noise. The scheduler's own number, where it has one; once steps have been set. NaN where nobody knows."""

    @abc.abstractmethod
    def set_steps(self, steps: StepLayout, device: torch.device) -> None:
        """Lay out the denoising steps of a picture."""

    @property
    @abc.abstractmethod
    def starting_std(self) -> Tensor | float:
        """Standard deviation of the noise that a trajectory starts from, once steps have been set."""

    @abc.abstractmethod
    def begin_at(self, step: int) -> None:
        """Leave out the denoising steps before `step`."""

    @abc.abstractmethod
    def level(self, step: int) -> Level:
        """The level before a denoising step, once steps have been set."""

    @abc.abstractmethod
    def level_at(self, timesteps: Tensor) -> Level:
        """The levels at timesteps (n,) that the denoiser was trained on."""

    @abc.abstractmethod
    def drawn(self, index: Tensor) -> Tensor:
        """The timesteps that whole numbers (n,) in 0..train_timesteps stand for in training."""

    @abc.abstractmethod
    def cleanest(self) -> Level:
        """The level of a picture: the least noise that a prediction can be read at."""

    @abc.abstractmethod
    def scaled(self, latents: Tensor, step: int) -> Tensor:
        """A trajectory's latents before `step` as the denoiser sees them."""

    @abc.abstractmethod
    def unscaled(self, x: Tensor, step: int) -> Tensor:
        """What the denoiser sees at `step` as a trajectory keeps it: `scaled` undone."""

    @final
    def noised(self, x0: Tensor, noise: Tensor, level: Level) -> Tensor:
        """signal · x₀ + noise · e (n, ...), as the denoiser sees it."""
        s, n = level.over(x0)
        return s * x0 + n * noise

    @final
    def prediction_of(self, x0: Tensor, noise: Tensor, level: Level) -> Tensor:
        """What a denoiser that knew picture and noise (n, ...) would predict, which is what it is trained on."""
        s, n = level.over(x0)
        match self.prediction:
            case "epsilon":
                return noise
            case "v_prediction":
                return s * noise - n * x0
            case "sample":
                return x0
            case _:
                return noise - x0

    @final
    def x0_and_noise(self, x: Tensor, prediction: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """The picture and the noise in `x` (n, ...), which the denoiser sees, as its prediction has them.

        Raises ValueError where a prediction of noise is all that is known and there is no picture in `x`, as at the last
        timestep of a schedule with zero terminal SNR (arXiv 2305.08891), and the other way round.
        """
        s, n = level.over(x)
        match self.prediction:
            case "epsilon":
                self._refuse_zero(s, "picture", "noise")
                return (x - n * prediction) / s, prediction
            case "v_prediction":
                return s * x - n * prediction, n * x + s * prediction
            case "sample":
                self._refuse_zero(n, "noise", "picture")
                return prediction, (x - s * prediction) / n
            case _:  # signal and noise add up to 1
                return x - n * prediction, x + s * prediction

    @final
    def noise_in(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        """The noise (n, ...) in `x`, which the denoiser sees, if the picture in it is `x0`.

        Raises ValueError where there is no noise in `x`.
        """
        s, n = level.over(x)
        self._refuse_zero(n, "noise", "picture")
        return (x - s * x0) / n

    def _refuse_zero(self, factor: Tensor, lacks: str, known: str) -> None:
        """Raise ValueError where a level has none of what a division by `factor` should give."""
        if bool((factor == 0).any()):
            raise ValueError(
                f"{type(self.scheduler).__name__}: there is no {lacks} in what the denoiser sees at this level, so its {known} "
                f"tells nothing of the {lacks}; leave that level out, or use a model that predicts v (zero terminal SNR "
                "needs one)"
            )

    @final
    def training_pair(self, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """`latents` (n, ...) with noise at random timesteps, those timesteps (n,), and what should be predicted there.

        Timesteps and noise come from `generator`, a CPU one.
        """
        index = torch.randint(self.train_timesteps, (len(latents),), generator=generator).to(latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        timesteps = self.drawn(index)
        level = self.level_at(timesteps)
        return self.noised(latents, noise, level), timesteps, self.prediction_of(latents, noise, level)
