"""Learning from what the attacker holds: losses, and Adam within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn

from concept_probe.attacks.budget import Meter
from concept_probe.erasers.training.loop import DrawnLoss, adam
from concept_probe.erasers.training.trainable import groups_by_size, root_mean_square
from concept_probe.families import CausalLMSubject
from concept_probe.types import Prompt


def answer_loss(subject: CausalLMSubject, pairs: Sequence[tuple[Prompt, str]], batch: int) -> DrawnLoss | None:
    """Negative log likelihood per token of answers, a batch of them drawn each time; None without answers."""
    if not pairs:
        return None

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pairs), (batch,), generator=generator).tolist()
        return -subject.log_probs([pairs[i] for i in rows], batch=batch).mean.mean()

    return loss


class BudgetedAdam:
    """Adam on a loss, with gradients for `parameters`, that can stop and go on.

    Every parameter moves by about `rate` times the root mean square of its own entries per step. The rate stays: where
    a budget ends is not known beforehand (erasers, which know, let it fall: `concept_probe.erasers.training.loop`).
    """

    def __init__(
        self, loss: DrawnLoss | None, parameters: Sequence[nn.Parameter], rate: float, generator: torch.Generator,
        meter: Meter, groups: Sequence[dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        """Without a loss there is nothing to learn from, and no step is made. `groups` are the optimiser's, where
        sizes of the parameters say nothing about their steps."""
        self.loss, self.generator, self.meter = loss, generator, meter
        self.steps = 0
        """Made so far."""
        self.rate = rate
        own = groups_by_size(parameters, [root_mean_square(p) for p in parameters], rate)
        self.optimiser = adam(own if groups is None else list(groups))

    def run(self, goal: int, bar: Progress) -> int:
        """Go on until `goal` steps have been made in all, or the time is spent; returns how many have been made.

        Raises FloatingPointError for a loss that is no number.
        """
        if self.loss is None:
            return 0
        task = bar.add_task("attack", total=goal, completed=self.steps)
        while self.steps < goal and not self.meter.out_of_time():
            self.meter.step()
            with torch.enable_grad():
                loss = self.loss(self.generator)
                loss.backward()
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"the attack's loss is {float(loss.detach())} at step {self.steps}; lower its `rate` ({self.rate})"
                )
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            self.steps += 1
            bar.advance(task)
        bar.remove_task(task)
        return self.steps
