"""Put more noise into the walk (noise-based probing, arXiv 2505.17013): an erasure may hold on one trajectory alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.budget import Attempt, Budget, Meter
from concept_probe.attacks.curve import Candidate, CurvePlan, shares, trace_curve
from concept_probe.attacks.labels import label_of, relabelled
from concept_probe.attacks.latents.base import own_noise, walker
from concept_probe.attacks.queries import query_rounds
from concept_probe.families.diffusion.trajectory import SamplingHook, Trajectory
from concept_probe.types import Concept

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class NoiseTrajectory(Attack):
    """Mixes fresh noise into the latents after each step, in the first half of the walk, and asks again.

    A share p of the latents' variance is replaced, so that their level stays that of the schedule's. Unrelated
    prompts, labelled with the concept, under the most noise are the control: what is seen there is the recogniser's
    mistake about disturbed pictures.
    """

    percent: tuple[int, ...] = (5, 15)
    """Shares of the variance that are replaced after a step, rising."""
    pictures: int = 16
    """Pictures per point and for the control, at most."""

    name: ClassVar[str] = "noise_trajectory"
    needs_examples: ClassVar[bool] = False
    on: ClassVar = "pictures"

    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt:
        if any(not 0 < p <= 100 for p in self.percent) or list(self.percent) != sorted(self.percent):
            raise ValueError(f"attack {self.name!r}: percent is {self.percent}; give rising numbers up to 100")
        meter, model, label = Meter(budget), walker(subject, self.name), label_of(concept)
        points, each = shares(budget, (0, *self.percent), self.pictures)
        queries = query_rounds(relabelled(concept.prompts("target", "test"), label), each, self.seed)
        others = query_rounds(relabelled(concept.prompts("unrelated", "test"), label), each, self.seed)

        def on(level: int):
            return model.hooked(SamplingHook(after_step=renoised(level / 100))) if level else None

        way = CurvePlan(
            points, "percent of variance", lambda level: level, lambda level: Candidate(queries, on(level)),
            lambda: Candidate(others, on(points[-1])), "unrelated prompts",
        )  # fmt: skip
        return trace_curve(self, subject, concept, budget, meter, way)


def renoised(share: float):
    """x <- sqrt(1 - share) x + sqrt(share) s e after each step of the first half, s the standard deviation of x."""

    def after(walk: Trajectory, step: int) -> None:
        if step >= len(walk.timesteps) // 2:
            return
        x = walk.latents
        level = x.float().flatten(1).std(1).to(x).view(-1, 1, 1, 1)
        walk.latents = (1 - share) ** 0.5 * x + share**0.5 * level * own_noise(walk)

    return after
