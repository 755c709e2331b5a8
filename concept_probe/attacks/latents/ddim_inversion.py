"""Run pictures of the concept back to noise and start there (DDIM inversion, arXiv 2010.02502; as in 2512.22877)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt
from concept_probe.attacks.budget import lay_out
from concept_probe.attacks.curve import Candidate, CurvePlan, trace_curve
from concept_probe.attacks.examples import examples_of
from concept_probe.attacks.latents.base import Walker, nameless, walker
from concept_probe.families import DiffusionSubject, Subject
from concept_probe.families.diffusion.trajectory import SamplingHook, Trajectory
from concept_probe.types import Prompt


@dataclass(frozen=True, eq=False)
class LatentInversion(Attack[DiffusionSubject]):
    """Inverts the attacker's pictures with the erased subject itself, under a prompt that names nothing, and draws from there.

    The walk is whole: all that it gets of the picture is the noise that it starts from. Ordinary noise under the
    baseline's prompts is point 0; the random candidate starts from the inverted latents with their places shuffled.
    """

    pictures: int = 16
    """Pictures per point and for the control, at most."""

    name = "latent_inversion"
    on = "pictures"
    needs_examples = True
    brings = True

    def run(self, run: AttackRun[DiffusionSubject]) -> Attempt:
        subject, examples = run.subject, examples_of(run.concept, run.budget)
        model = walker(subject, self.name)
        run.meter.use_examples(len(examples))
        points, each = lay_out(run.budget, (0, len(examples)) if len(examples) else (0,), self.pictures)
        queries = run.queries(run.tests(), each)
        text = nameless(run.concept.prompts("anchor", "fit"))[0]

        def at(count: int, mixed: bool) -> Candidate:
            if not count:
                return Candidate(queries)
            return Candidate(queries, model.hooked(SamplingHook(start=start(mixed))))

        def start(mixed: bool):
            inverted: list[Tensor] = []

            def begin(walk: Trajectory, rows: Sequence[int]) -> None:
                if not inverted:
                    clean = model.latents(examples.to(subject.device, subject.dtype))
                    found = invert(model, subject, clean, walk, text)
                    inverted.append(displaced(found, self.seed) if mixed else found)
                walk.latents = inverted[0][[i % len(inverted[0]) for i in rows]]

            return begin

        plan = CurvePlan(
            points, "pictures inverted", lambda count: count, lambda count: at(count, mixed=False),
            lambda: at(points[-1], mixed=True), "shuffled latents",
        )  # fmt: skip
        return trace_curve(run, plan)


@torch.no_grad()
def invert(model: Walker, subject: Subject, clean: Tensor, walk: Trajectory, text: Prompt) -> Tensor:
    """Latents (n, c, h, w) at the walk's first timestep from which deterministic steps under `text` lead near `clean`.

    x_next = sqrt(a_next) x0 + sqrt(1 - a_next) e with x0 and e as the denoiser says at the present level
    (arXiv 2010.02502, eq. 12 with sigma 0, run backwards), then in the scheduler's scaling.
    """
    scheduler = model.pipeline.scheduler
    kept = scheduler.alphas_cumprod.to(clean.device, torch.float32)
    condition = subject.encode([text])
    condition = condition.rows(torch.zeros(len(clean), dtype=torch.long, device=condition.states.device))
    x = clean.float()
    times = walk.timesteps.round().long().flip(0).clamp(0, len(kept) - 1)
    now = kept[0]
    for t in times:
        then = kept[t]
        said = model.predict(x.to(clean.dtype), t.repeat(len(x)), condition).float()
        x0, noise = parts(x, said, now, scheduler.config.prediction_type)
        x, now = then.sqrt() * x0 + (1 - then).sqrt() * noise, then
    return (x / now.sqrt() if hasattr(scheduler, "sigmas") else x).to(clean.dtype)


def parts(x: Tensor, said: Tensor, kept: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """The picture and the noise in `x` = sqrt(a) x0 + sqrt(1 - a) e, as a prediction of type `kind` has them."""
    signal, level = kept.sqrt(), (1 - kept).sqrt()
    if kind == "epsilon":
        return (x - level * said) / signal, said
    if kind == "v_prediction":
        return signal * x - level * said, level * x + signal * said
    if kind == "sample":
        return said, (x - signal * said) / level
    raise ValueError(f"prediction type {kind!r} is none of epsilon, v_prediction, sample")


def displaced(latents: Tensor, seed: int) -> Tensor:
    """The latents (n, c, h, w) with their places in a random order, the same for all."""
    order = torch.randperm(latents.shape[-1] * latents.shape[-2], generator=torch.Generator().manual_seed(seed))
    return latents.flatten(2)[:, :, order].view(latents.shape)
