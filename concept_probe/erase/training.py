"""The loop that every gradient method shares: Adam on what a method calls its loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from concept_probe.erase.students import Student
from concept_probe.families.progress import progress

Loss = Callable[[int, torch.Generator], Tensor]
"""(step, CPU generator) -> a scalar with gradients, evaluated with the student on."""


def ends(losses: list[float]) -> list[float]:
    """Mean loss over the first and over the last tenth of the steps; nothing where there were none."""
    tenth = max(len(losses) // 10, 1)
    return [sum(part) / len(part) for part in (losses[:tenth], losses[-tenth:])] if losses else []


def descend(
    student: Student, loss: Loss, *, steps: int, rate: float, generator: torch.Generator, method: str
) -> list[float]:
    """`steps` of Adam on `loss`; the rate falls to 0 along a cosine. Returns the loss at each step.

    Raises FloatingPointError for a loss that is no number; the subject has its own bytes then too.
    """
    optimiser = torch.optim.Adam(student.groups(rate))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    losses: list[float] = []
    with progress(f"steps of {method}", steps) as done, torch.enable_grad(), student.on():
        for step in range(steps):
            value = loss(step, generator)
            if not torch.isfinite(value):
                raise FloatingPointError(
                    f"{method}: the loss is {float(value.detach())} at step {step}; lower `rate` ({rate})"
                )
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(value.detach()))
            done(1)
    return losses
