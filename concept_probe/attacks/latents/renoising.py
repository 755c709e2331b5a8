"""Put more noise into the walk (noise-based probing, arXiv 2505.17013): an erasure may hold on one trajectory alone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from concept_probe.arguments import Count
from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt
from concept_probe.attacks.budget import lay_out
from concept_probe.attacks.curve import Candidate, CurvePlan, trace_curve
from concept_probe.attacks.labels import relabelled
from concept_probe.attacks.latents.base import own_noise
from concept_probe.families import DiffusionSubject
from concept_probe.families.diffusion.trajectory import SamplingHook, Trajectory


@dataclass(frozen=True, eq=False)
class NoiseTrajectory(Attack[DiffusionSubject]):
    """Mixes fresh noise into the latents after each step, in the first half of the walk, and asks again.

    A share p of the latents' variance is replaced, so that their level stays that of the schedule's. Unrelated
    prompts, labelled with the concept, under the most noise are the control: what is seen there is the recogniser's
    mistake about disturbed pictures.
    """

    percent: tuple[int, ...] = (5, 15)
    """Shares of the variance that are replaced after a step, rising."""
    pictures: Count = 16
    """Pictures per point and for the control, at most."""

    name = "noise_trajectory"
    on = "pictures"

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not 0 < p <= 100 for p in self.percent) or list(self.percent) != sorted(self.percent):
            raise ValueError(f"attack {self.name!r}: percent is {self.percent}; give rising numbers up to 100")

    def run(self, run: AttackRun[DiffusionSubject]) -> Attempt:
        points, each = lay_out(run.budget, (0, *self.percent), self.pictures)
        queries = run.queries(run.tests(), each)
        others = run.queries(relabelled(run.concept.prompts("unrelated", "test"), run.label), each)

        def on(level: int) -> AbstractContextManager[None] | None:
            return run.subject.hooked(SamplingHook(after_step=renoised(level / 100))) if level else None

        plan = CurvePlan(
            points, "percent of variance", lambda level: level, lambda level: Candidate(queries, on(level)),
            lambda: Candidate(others, on(points[-1])), "unrelated prompts",
        )  # fmt: skip
        return trace_curve(run, plan)


def renoised(share: float):
    """x <- sqrt(1 - share) x + sqrt(share) s e after each step of the first half, s the standard deviation of x."""

    def after(walk: Trajectory, step: int) -> None:
        if step >= len(walk.timesteps) // 2:
            return
        x = walk.latents
        level = x.float().flatten(1).std(1).to(x).view(-1, 1, 1, 1)
        walk.latents = (1 - share) ** 0.5 * x + share**0.5 * level * own_noise(walk)

    return after
