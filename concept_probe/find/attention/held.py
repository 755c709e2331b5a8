"""Given pictures in the place of what a trajectory makes: at every step the denoiser sees them, with that step's noise."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from concept_probe.families.diffusion.trajectory import SamplingHook, Trajectory


def held(latents: Tensor) -> SamplingHook:
    """A hook under which each trajectory of `latents` (n, ...), one row per query, stays with them.

    The noise is that of each query's seed, the same at every step, and what comes out in the end are the latents.
    """
    clean: list[Tensor] = []
    noise: list[Tensor] = []

    def put(trajectory: Trajectory, step: int) -> None:
        if step == len(trajectory.timesteps):
            trajectory.latents = clean[-1].clone()
        else:
            trajectory.latents = trajectory.noised(clean[-1], noise[-1], step).to(clean[-1])

    def start(trajectory: Trajectory, rows: Sequence[int]) -> None:
        clean[:] = [latents[list(rows)].to(trajectory.latents)]
        noise[:] = [trajectory.latents / trajectory.schedule.starting_std]
        put(trajectory, trajectory.first)

    return SamplingHook(start=start, after_step=lambda trajectory, step: put(trajectory, step + 1))
