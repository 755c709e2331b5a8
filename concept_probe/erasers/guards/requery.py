"""A second pass of the denoiser within the one under way: the same latents under another text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from concept_probe.erasers.training.replay import encode_prompts
from concept_probe.families import DiffusionSubject
from concept_probe.types import Prompt


class Requery:
    """Asks the denoiser again what it predicts under a fixed text."""

    def __init__(self, subject: DiffusionSubject, text: str) -> None:
        self.subject, self.text = subject, text

    def __call__(self, rows: Sequence[int]) -> Tensor:
        """Predictions (n, c, h, w) for these rows of the pass under way. Not to be called in a pass that is `nested`."""
        condition = encode_prompts(self.subject, [Prompt(self.text)])
        index = torch.zeros(len(rows), dtype=torch.long, device=condition.states.device)
        return self.subject.repredict(condition.rows(index), rows)
