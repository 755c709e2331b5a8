"""Distillation: what a student should say of latents, as the frozen subject says it of the same latents."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations.tap import Look, tap
from concept_probe.erasers.finetune.loop import Loss, descend
from concept_probe.erasers.finetune.replay import Pool, denoiser, predictions, read, walks
from concept_probe.erasers.finetune.trainable import Student, size_of
from concept_probe.types import Moment, Prompt, Sampling, Site, evenly

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class Training:
    """How a gradient method is run."""

    steps: int = 120
    """Gradient steps."""
    batch: int = 4
    """Latents per step and lesson."""
    rate: float = 0.01
    """Adam's step, as a multiple of the root mean square of each parameter's entries; falls to 0 along a cosine."""
    pictures: int = 16
    """Walks from noise to pictures per lesson; every step of each gives latents to learn on."""
    sampling: Sampling = Sampling(guidance=3.0)
    """How these walks are made."""
    refresh: int = 0
    """Every so many steps the walks of the first lesson are made anew, by the subject as it is then; 0: never."""
    retain: float = 1.0
    """Weight of the lesson that other prompts are answered as before; 0: there is none."""
    adversary: int = 0
    """Steps by which an adversary moves the token embeddings of the first lesson's prompts towards the concept."""
    reach: float = 0.5
    """How far it may move each entry, as a multiple of the root mean square of the embeddings."""
    seed: int = 0
    """Of everything that is drawn."""


@dataclass(frozen=True)
class Lesson:
    """One term of the loss: weight · |ε_student(x_t, asked) - goal(x_t)|²."""

    walked: tuple[Prompt, ...]
    """Prompts whose walks the latents x_t are from."""
    asked: Callable[[Prompt, torch.Generator], Prompt]
    """What the student is asked at a latent of a walked prompt."""
    goal: Callable[[Pool], Tensor]
    """What it should say there (n, c, h, w), by the frozen subject."""
    weight: float = 1.0
    stress: Callable[[Pool], Tensor] | None = None
    """A further weight of each latent of a pool (n,); None: all alike."""


def same(prompt: Prompt, generator: torch.Generator) -> Prompt:
    """Ask for what the walk was made for."""
    return prompt


def keep(subject: Subject, prompts: Sequence[Prompt], weight: float, method: str) -> list[Lesson]:
    """The lesson that prompts are answered as before; none where there are no prompts or no weight."""
    if not prompts or not weight:
        return []
    return [Lesson(tuple(prompts), same, lambda pool: predictions(subject, pool, pool.prompts, method), weight)]


def others_alone(training: Training) -> Training:
    """For a method whose only lesson is that of other prompts: without what is meant for the lesson of the concept."""
    return replace(training, refresh=0, adversary=0)


def teach(
    subject: Subject, student: Student, lessons: Sequence[Lesson], training: Training, method: str,
    also: Loss | None = None,
) -> list[float]:  # fmt: skip
    """Train the student on all lessons together; the loss at each step.

    The first lesson is that of the concept: its walks are refreshed, its prompts get the adversary. `also` is a term of
    the method's own that is no lesson, added to theirs.
    """
    generator = torch.Generator().manual_seed(training.seed)
    of_lessons = loss_of(subject, student, lessons, training, method) if lessons else None

    def loss(step: int, generator: torch.Generator) -> Tensor:
        return torch.stack([term(step, generator) for term in (of_lessons, also) if term]).sum()

    return descend(student, loss, steps=training.steps, rate=training.rate, generator=generator, method=method)


def loss_of(subject: Subject, student: Student, lessons: Sequence[Lesson], training: Training, method: str) -> Loss:
    """What `teach` descends: the weighted gaps of all lessons at a batch of each; walks and goals are made here."""
    model = denoiser(subject, method)
    pools = [_pool(subject, lesson, training, training.seed) for lesson in lessons]
    goals = [lesson.goal(pool) for lesson, pool in zip(lessons, pools, strict=True)]
    own = [predictions(subject, pools[0], pools[0].prompts, method)] if training.adversary and pools else []

    def loss(step: int, generator: torch.Generator) -> Tensor:
        if training.refresh and step and step % training.refresh == 0:
            pools[0] = _pool(subject, lessons[0], training, training.seed + 1000 * step)
            with student.reference():
                goals[0] = lessons[0].goal(pools[0])
                own[:] = [predictions(subject, pools[0], pools[0].prompts, method)] if own else []
        seen, times, asked, wanted, weights = [], [], [], [], []
        for lesson, pool, goal in zip(lessons, pools, goals, strict=True):
            index = torch.randint(len(pool), (training.batch,), generator=generator)
            part = pool.rows(index)
            seen.append(part.seen)
            times.append(part.timesteps)
            asked += [lesson.asked(p, generator) for p in part.prompts]
            wanted.append(goal[index])
            weights.append(lesson.weight * (torch.ones(len(part)) if lesson.stress is None else lesson.stress(part)))
            if lesson is lessons[0] and own:
                offsets = led_back(subject, part, asked, own[0][index], training, generator, method)
        with added(subject, offsets) if own else contextlib.nullcontext():
            condition = read(subject, asked, method)
        said = model.predict(torch.cat(seen), torch.cat(times), condition)
        each = (said - torch.cat(wanted)).float().square().flatten(1).mean(1)
        return (each * torch.cat([w.to(each) for w in weights])).sum() / training.batch

    return loss


def _pool(subject: Subject, lesson: Lesson, training: Training, seed: int) -> Pool:
    prompts = evenly(lesson.walked, training.pictures)
    return walks(subject, prompts, training.pictures, training.sampling, seed)


def led_back(
    subject: Subject, part: Pool, asked: Sequence[Prompt], own: Tensor, training: Training, generator: torch.Generator,
    method: str,
) -> dict[Site, Tensor]:  # fmt: skip
    """Offsets (b, t, d) of the token embeddings under which the student says of `part` what the concept is (`own`).

    Signed gradient steps from a random start, within `reach` (arXiv 2405.15234). Gradients of the student's
    parameters are not touched; the last offsets are returned.
    """
    model = denoiser(subject, method)
    sites = subject.sites("token_embedding")
    with torch.no_grad():
        shapes: dict[Site, Tensor] = {}
        with tap(subject, {site: (lambda x, m, s=site: shapes.update({s: x})) for site in sites}):
            subject.encode(asked)
    reach = {site: training.reach * size_of(x) for site, x in shapes.items()}
    offsets = {
        site: ((torch.rand(x.shape, generator=generator) * 2 - 1).to(x) * reach[site]).requires_grad_()
        for site, x in shapes.items()
    }
    for _ in range(training.adversary):
        with added(subject, offsets):
            condition = subject.encode(asked)
        gap = (model.predict(part.seen, part.timesteps, condition) - own).float().square().mean()
        slopes = torch.autograd.grad(gap, list(offsets.values()), allow_unused=True)
        for (site, x), slope in zip(offsets.items(), slopes, strict=True):
            if slope is None:
                continue
            step = 2 * reach[site] / training.adversary
            moved = (x.detach() - step * slope.sign()).clamp(-reach[site], reach[site])
            offsets[site] = moved.requires_grad_()
    return {site: x.detach() for site, x in offsets.items()}


@contextlib.contextmanager
def added(subject: Subject, offsets: dict[Site, Tensor]) -> Iterator[None]:
    """Token embeddings of the first prompts moved by `offsets` (b, t, d); never those of the beginning token."""

    def put(site: Site) -> Look:
        def look(x: Tensor, moment: Moment) -> Tensor:
            move = torch.zeros_like(x)
            rows = [(i, p) for i, p in enumerate(moment.prompts) if p < len(offsets[site])]
            index, of = [i for i, _ in rows], [p for _, p in rows]
            return x + move.index_put((torch.tensor(index, device=x.device),), offsets[site][of].to(x) * _words(x))

        return look

    with tap(subject, {site: put(site) for site in offsets}):
        yield


def _words(x: Tensor) -> Tensor:
    """(1, t, 1): 0 at the beginning token, 1 elsewhere."""
    mask = torch.ones(1, x.shape[1], 1, device=x.device, dtype=x.dtype)
    mask[:, 0] = 0
    return mask
