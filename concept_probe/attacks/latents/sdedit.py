"""Start from noised pictures of the concept (SDEdit, arXiv 2108.01073), as visual context does (arXiv 2505.17013)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.arguments import Count
from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt
from concept_probe.attacks.budget import lay_out
from concept_probe.attacks.curve import Candidate, CurvePlan, trace_curve
from concept_probe.attacks.examples import examples_of
from concept_probe.attacks.latents.base import own_noise
from concept_probe.families import DiffusionSubject
from concept_probe.families.diffusion.trajectory import SamplingHook, Trajectory


@dataclass(frozen=True, eq=False)
class VisualContext(Attack[DiffusionSubject]):
    """Leaves out the first part of the walk and starts from a picture of the concept with as much noise instead.

    What the model makes of a half-hidden picture shows whether it still knows what it sees. The random candidate
    starts from pictures whose pixels are shuffled: the same colours, and no concept.
    """

    percent: tuple[int, ...] = (10, 30)
    """Shares of the walk that are left out, rising; at 100 the picture itself would be shown."""
    pictures: Count = 16
    """Pictures per point and for the control, at most."""

    name = "visual_context"
    on = "pictures"
    needs_examples = True
    brings = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not 0 < p < 100 for p in self.percent) or list(self.percent) != sorted(self.percent):
            raise ValueError(f"attack {self.name!r}: percent is {self.percent}; give rising numbers between 0 and 100")

    def run(self, run: AttackRun[DiffusionSubject]) -> Attempt:
        subject, examples = run.subject, examples_of(run.concept, run.budget)
        run.meter.use_examples(len(examples))
        points, each = lay_out(run.budget, (0, *self.percent) if len(examples) else (0,), self.pictures)
        queries = run.queries(run.tests(), each)

        def at(level: int, images: Tensor) -> Candidate:
            if not level:
                return Candidate(queries)
            with torch.no_grad():
                latents = subject.latents(images.to(subject.device, subject.dtype))
            return Candidate(queries, subject.hooked(SamplingHook(start=from_pictures(latents, level / 100))))

        plan = CurvePlan(
            points, "percent of the walk left out", lambda level: level, lambda level: at(level, examples),
            lambda: at(points[-1], shuffled_pixels(examples, self.seed)), "shuffled pictures",
        )  # fmt: skip
        return trace_curve(run, plan)


def from_pictures(latents: Tensor, share: float):
    """Start at the step after `share` of the walk, query i from picture i, modulo their number, with its own noise."""

    def begin(walk: Trajectory, rows: Sequence[int]) -> None:
        step = min(round(share * len(walk.timesteps)), len(walk.timesteps) - 1)
        if step == 0:
            return
        clean = latents[[i % len(latents) for i in rows]]
        walk.latents = walk.noised(clean, own_noise(walk), step)
        walk.starts_at(step)

    return begin


def shuffled_pixels(images: Tensor, seed: int) -> Tensor:
    """The pictures (n, 3, h, w) with their pixels in a random order, the same for all."""
    order = torch.randperm(images.shape[-1] * images.shape[-2], generator=torch.Generator().manual_seed(seed))
    return images.flatten(2)[:, :, order].view(images.shape)
