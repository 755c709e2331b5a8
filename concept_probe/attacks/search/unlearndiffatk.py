"""Words before the prompt, by projected sign gradient over the vocabulary (UnlearnDiffAtk, arXiv 2310.11868)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.attacks.search.objective import Goal, WordGradients, denoised, word_gradients
from concept_probe.attacks.search.search import HardPrompt
from concept_probe.attacks.search.slots import Slot, in_front
from concept_probe.attacks.search.steps import SearchStep
from concept_probe.attacks.search.vocabulary import Vocabulary
from concept_probe.families import DiffusionSubject
from concept_probe.types import Prompt


@dataclass(frozen=True, eq=False)
class UnlearnDiffAtk(HardPrompt):
    """Puts words before prompts that name the concept, so that the erased model denoises pictures of it well.

    A weight per place and word moves against the sign of the gradient and is projected back to shares that sum to 1;
    the word of the largest share is read.
    """

    rate: float = 0.5
    """Step of every share."""

    name = "unlearndiffatk"

    def slot(self, prompt: Prompt) -> Slot:
        return in_front(prompt)

    def goal(self, subject: DiffusionSubject, slots: Sequence[Slot]) -> Goal:
        return denoised(subject)

    def stepper(self, vocabulary: Vocabulary) -> SearchStep:
        shares: Tensor | None = None

        def step(ids: Tensor, gradients: WordGradients) -> Tensor:
            nonlocal shares
            gradient = word_gradients(vocabulary, gradients).cpu()
            if shares is None:
                shares = torch.nn.functional.one_hot(ids, len(vocabulary.words)).float()
            gradient = gradient - gradient.mean(1, keepdim=True)  # along the simplex: a shift of all changes no share
            shares = on_simplex(shares - self.rate * gradient.sign())
            # Signs leave many words with equal shares; of those the steepest comes first.
            tied = shares >= shares.max(1, keepdim=True).values - 1e-6
            return gradient.masked_fill(~tied, torch.inf).argmin(1)

        return step


def on_simplex(x: Float[Tensor, "k v"]) -> Float[Tensor, "k v"]:
    """The nearest rows that are nowhere negative and sum to 1 (arXiv 1101.6081): max(x - t, 0) with one t per row."""
    falling = x.sort(1, descending=True).values
    excess = (falling.cumsum(1) - 1) / torch.arange(1, x.shape[1] + 1, device=x.device)
    last = (falling > excess).sum(1, keepdim=True) - 1
    return (x - excess.gather(1, last)).clamp_min(0)
