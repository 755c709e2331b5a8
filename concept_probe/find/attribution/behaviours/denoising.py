"""How well a picture of the concept is denoised under the concept's prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from concept_probe.arguments import Count, check_arguments
from concept_probe.families import DiffusionSubject
from concept_probe.find.attribution.behaviours.behaviour import Behaviour, Measuring, Setting


@dataclass(frozen=True)
class DenoisingError(Behaviour):
    """Minus the denoiser's mean squared error, on the picture that the untouched model draws for each query.

    Noise and timesteps come from the query's seed, so coalitions differ by what was taken out alone. One pass for each query in place
    of a whole trajectory.
    """

    name = "denoising"
    on = "pictures"
    unit = "minus squared error"
    smooth = True
    draws: Count = 4
    """Levels of noise for each query."""

    def __post_init__(self) -> None:
        check_arguments(self, self.name)

    def prepared(self, setting: Setting) -> Measuring:
        subject = cast(DiffusionSubject, setting.subject)
        clean = subject.sample(setting.queries, setting.sampling)

        def measure(rows: Sequence[int]) -> Tensor:
            out = []
            for i in rows:
                generator = torch.Generator().manual_seed(setting.queries[i].seed)
                latents = clean[i : i + 1].expand(self.draws, *clean.shape[1:])
                out.append(-subject.denoising_loss(latents, [setting.queries[i].prompt] * self.draws, generator))
            return torch.stack(out).cpu()

        return measure
