"""The loop that every eraser by gradients shares: Adam on what a method calls its loss.

It makes a number of steps that is known beforehand, so its rate can fall along a curve. Attacks learn until a budget is
spent, and go on where they stopped: `concept_probe.attacks.optimise` has their loop, with this one's optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from concept_probe.erasers.training.trainable import Trainable
from concept_probe.families.progress import progress

DrawnLoss = Callable[[torch.Generator], Tensor]
"""A scalar with gradients; all that it draws comes from the CPU generator."""
StepLoss = Callable[[int, torch.Generator], Tensor]
"""(step, CPU generator) -> a scalar with gradients, or two terms (2,) of it, evaluated with the change on."""
GradientSurgery = Callable[[list[Tensor], list[Tensor]], list[Tensor]]
"""Gradients of the first and of the second term, a tensor per parameter -> those that the optimiser gets."""


@dataclass(frozen=True)
class AdamStep:
    """How far a step of Adam goes."""

    size: float
    absolute: bool = False
    """Whether `size` is Adam's own step for every parameter; else a multiple of each one's mean size."""
    constant: bool = False
    """Whether it stays the same; else it falls to 0 along a cosine."""

    def groups(self, trained: Trainable) -> list[dict[str, Any]]:
        """What is trained, in groups for an optimiser."""
        groups = trained.groups(self.size)
        return [{**group, "lr": self.size} for group in groups] if self.absolute else groups

    def schedule(self, optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """How the step changes over so many steps."""
        if self.constant:
            return torch.optim.lr_scheduler.ConstantLR(optimiser, 1.0)
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))


def loss_at_ends(losses: list[float]) -> list[float]:
    """Mean loss over the first and over the last tenth of the steps; nothing where there were none."""
    tenth = max(len(losses) // 10, 1)
    return [sum(part) / len(part) for part in (losses[:tenth], losses[-tenth:])] if losses else []


def adam(groups: Sequence[dict[str, Any]]) -> torch.optim.Adam:
    """Adam on groups of parameters. In float16 its usual eps is 0, and a gradient of 0 would give 0 / 0."""
    half = any(p.dtype == torch.float16 for group in groups for p in group["params"])
    return torch.optim.Adam(groups, eps=1e-4 if half else 1e-8)


def descend(
    trained: Trainable, loss: StepLoss, *, steps: int, rate: float | AdamStep, generator: torch.Generator, method: str,
    surgery: GradientSurgery | None = None,
) -> list[float]:  # fmt: skip
    """`steps` of Adam on `loss`; a number as rate is `AdamStep(rate)`. Returns the loss at each step.

    With `surgery` the loss has two terms, whose gradients it puts together; without it they are added up.
    Raises FloatingPointError for a loss that is no number; the subject has its own bytes then too.
    """
    given = rate if isinstance(rate, AdamStep) else AdamStep(rate)
    optimiser = adam(given.groups(trained))
    schedule = given.schedule(optimiser, steps)
    losses: list[float] = []
    with progress(f"steps of {method}", steps) as done, torch.enable_grad(), trained.on():
        for step in range(steps):
            terms = loss(step, generator)
            value = terms.sum()
            if not torch.isfinite(value):
                raise FloatingPointError(
                    f"{method}: the loss is {float(value.detach())} at step {step}; lower `rate` ({given.size})"
                )
            optimiser.zero_grad(set_to_none=True)
            if surgery is None:
                value.backward()
            else:
                apply_surgery(terms, [p for group in optimiser.param_groups for p in group["params"]], surgery)
            optimiser.step()
            schedule.step()
            losses.append(float(value.detach()))
            done(1)
    return losses


def apply_surgery(terms: Tensor, parameters: list[Tensor], surgery: GradientSurgery) -> None:
    """Set the parameters' gradients to what `surgery` makes of those of the two `terms` (2,)."""
    first, second = (
        [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        for gradients in (
            torch.autograd.grad(terms[0], parameters, retain_graph=True, allow_unused=True),
            torch.autograd.grad(terms[1], parameters, allow_unused=True),
        )
    )
    for p, gradient in zip(parameters, surgery(first, second), strict=True):
        p.grad = gradient
