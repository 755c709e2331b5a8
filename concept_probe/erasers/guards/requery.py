"""A second pass of the denoiser within the one under way: the same latents under another text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from concept_probe.erasers.finetune.replay import denoiser, read
from concept_probe.families import DiffusionSubject
from concept_probe.types import Prompt


class Requery:
    """Asks the denoiser again what it predicts under a fixed text."""

    def __init__(self, subject: DiffusionSubject, text: str, method: str) -> None:
        self.subject, self.text, self.method = subject, text, method
        self.model = denoiser(subject, method)

    def __call__(self, rows: Sequence[int]) -> Tensor:
        """Predictions (n, c, h, w) for these rows of the pass under way. Not to be called in a pass that is `nested`."""
        condition = read(self.subject, [Prompt(self.text)], self.method)
        index = torch.zeros(len(rows), dtype=torch.long, device=condition.states.device)
        return self.model.repredict(condition.rows(index), rows)
