"""A diffusion subject of which everything is known: its pictures are drawn from one normal distribution per pixel, and
its denoiser predicts the mean of what they can be, exactly, for whatever scheduler it is given."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from concept_probe.families.diffusion.dit.layout import shift_by_size
from concept_probe.families.diffusion.guidance import Guidance, NoGuidance
from concept_probe.families.diffusion.schedule import Level, StepLayout
from concept_probe.families.diffusion.subject import DiffusionSubject
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.encoders import TextEncoders
from concept_probe.families.text.tokens import Tokens
from concept_probe.types import Moment, Prompt, Sampling, Site

MEAN, STD = 0.7, 0.4


class Wordless(TextEncoders):
    """Every prompt reads the same."""

    def __init__(self) -> None:
        self.encoders, self.tokenizers = {}, {}

    def sites(self) -> dict[str, tuple[Site, ...]]:
        return {}

    def tokenise(self, prompts: Sequence[Prompt]) -> Tokens:
        nothing = torch.zeros(len(prompts), 1, dtype=torch.long)
        return Tokens((nothing,), (nothing,), (nothing,))

    def read(self, subject: Any, prompts: Sequence[Prompt], moment: Moment) -> Conditioning:
        return Conditioning(torch.zeros(len(prompts), 1, 1), None, torch.zeros(len(prompts), 1, dtype=torch.long))

    def run_to(self, subject: Any, sites: Sequence[Site], prompts: Sequence[Prompt], moment: Moment) -> None:
        raise NotImplementedError


class Gaussian(DiffusionSubject):
    """A picture's latents are a row of 512 numbers."""

    family = "gaussian"
    denoiser = "denoiser"

    def __init__(self, scheduler: Any) -> None:
        pipeline = SimpleNamespace(components={"denoiser": nn.Linear(1, 1)}, scheduler=scheduler, config=None)
        super().__init__("gaussian", pipeline, Wordless(), {})

    @classmethod
    def adopt(cls, name: str, pipeline: Any) -> Self:
        return cls(pipeline.scheduler)

    def axis(self, site: Site) -> Literal["token", "patch"]:
        return "patch"

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (512,)

    @classmethod
    def own_size(cls, pipeline: Any) -> tuple[int, int]:
        return 1, 1

    @property
    def grid(self) -> int:
        return 1

    def steps(self, count: int) -> StepLayout:
        return StepLayout(count, shift=shift_by_size(self.pipeline.scheduler.config, 512))

    def guidance(self, sampling: Sampling) -> Guidance:
        return NoGuidance()

    def _forward(self, latents: Tensor, timestep: Tensor, text: Conditioning) -> Tensor:
        level = self.level(timestep)
        s, n = level.over(latents)
        x0 = MEAN + s * STD**2 / (s**2 * STD**2 + n**2) * (latents - s * MEAN)
        return self.schedule.prediction_of(x0, (latents - s * x0) / n, level)

    def level(self, timestep: Tensor) -> Level:
        """Also between two trained timesteps."""
        if self.schedule.prediction == "flow_prediction":
            return self.schedule.level_at(timestep)
        shares = self.pipeline.scheduler.alphas_cumprod.double().numpy()
        with np.errstate(divide="ignore"):  # noise alone, in the end
            ratios = ((1 - shares) / shares) ** 0.5
        ratio = np.interp(timestep.double().numpy(), np.arange(len(shares)), ratios)
        share = torch.tensor(1 / (1 + ratio**2)).float()
        return Level(share.sqrt(), (1 - share).sqrt())
