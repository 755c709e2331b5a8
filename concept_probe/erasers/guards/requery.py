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
        """Predictions (n, c, h, w) for these rows of the pass under way. Not to be called in a pass that is `nested`.

        RuntimeError where the pass is of another subject than the one that the guard was made on.
        """
        if self.subject.state.moment is None:
            raise RuntimeError(
                f"the guard asks {self.subject.name!r}, which it was made on, and another subject is running; make the guard "
                "again on the subject that it is switched on in"
            )
        condition = encode_prompts(self.subject, [Prompt(self.text)])
        index = torch.zeros(len(rows), dtype=torch.long, device=condition.states.device)
        return self.subject.repredict(condition.rows(index), rows)
