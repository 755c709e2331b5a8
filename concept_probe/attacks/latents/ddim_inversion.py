"""Run pictures of the concept back to noise and start there (DDIM inversion, arXiv 2010.02502; as in 2512.22877)."""

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
from concept_probe.attacks.latents.base import nameless
from concept_probe.families import DiffusionSubject
from concept_probe.families.diffusion.trajectory import SamplingHook, Trajectory
from concept_probe.types import Prompt


@dataclass(frozen=True, eq=False)
class LatentInversion(Attack[DiffusionSubject]):
    """Inverts the attacker's pictures with the erased subject itself, under a prompt that names nothing, and draws from there.

    The walk is whole: all that it gets of the picture is the noise that it starts from. Ordinary noise under the
    baseline's prompts is point 0; the random candidate starts from the inverted latents with their places shuffled.
    """

    pictures: Count = 16
    """Pictures per point and for the control, at most."""

    name = "latent_inversion"
    on = "pictures"
    needs_examples = True
    brings = True

    def run(self, run: AttackRun[DiffusionSubject]) -> Attempt:
        subject, examples = run.subject, examples_of(run.concept, run.budget)
        run.meter.use_examples(len(examples))
        points, each = lay_out(run.budget, (0, len(examples)) if len(examples) else (0,), self.pictures)
        queries = run.queries(run.tests(), each)
        text = nameless(run.concept.prompts("anchor", "fit"))[0]

        def at(count: int, mixed: bool) -> Candidate:
            if not count:
                return Candidate(queries)
            return Candidate(queries, subject.hooked(SamplingHook(start=start(mixed))))

        def start(mixed: bool):
            inverted: list[Tensor] = []

            def begin(walk: Trajectory, rows: Sequence[int]) -> None:
                if not inverted:
                    clean = subject.latents(examples.to(subject.device, subject.dtype))
                    found = invert(subject, clean, walk, text)
                    inverted.append(displaced(found, self.seed) if mixed else found)
                walk.latents = inverted[0][[i % len(inverted[0]) for i in rows]]

            return begin

        plan = CurvePlan(
            points, "pictures inverted", lambda count: count, lambda count: at(count, mixed=False),
            lambda: at(points[-1], mixed=True), "shuffled latents",
        )  # fmt: skip
        return trace_curve(run, plan)


@torch.no_grad()
def invert(subject: DiffusionSubject, clean: Tensor, trajectory: Trajectory, text: Prompt) -> Tensor:
    """Latents (n, ...) at the first step of `trajectory`, in its units, from which deterministic steps under `text` lead
    near `clean`.

    At each step, last to first, the picture and the noise that the denoiser sees at the present level are mixed anew at
    the next (arXiv 2010.02502, eq. 12 with sigma 0, run backwards).
    """
    schedule, condition = trajectory.schedule, subject.encode([text])
    condition = condition.rows(torch.zeros(len(clean), dtype=torch.long, device=condition.states.device))
    x, now = clean.float(), schedule.cleanest()
    for step in reversed(range(len(trajectory.timesteps))):
        timesteps = trajectory.timesteps[step].repeat(len(x))
        prediction = subject.predict(x.to(clean.dtype), timesteps, condition).float()
        x0, noise = schedule.x0_and_noise(x, prediction, now)
        now = trajectory.level(step)
        x = schedule.noised(x0, noise, now)
    return schedule.unscaled(x, 0).to(clean.dtype)


def displaced(latents: Tensor, seed: int) -> Tensor:
    """The latents (n, c, h, w) with their places in a random order, the same for all."""
    order = torch.randperm(latents.shape[-1] * latents.shape[-2], generator=torch.Generator().manual_seed(seed))
    return latents.flatten(2)[:, :, order].view(latents.shape)
