"""Distillation: what a student should predict at latents, as the frozen subject predicts it at the same latents."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from concept_probe.arguments import Count, Natural, Nonnegative, SeedNumber, check_arguments
from concept_probe.erasers.eraser import TINY_SAMPLING, Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.adversarial import adversarial_offsets, embeddings_moved
from concept_probe.erasers.training.loop import AdamStep, StepLoss, descend, loss_at_ends
from concept_probe.erasers.training.replay import (
    LatentBuffer,
    collect,
    encode_prompts,
    extrapolated_predictions,
    predictions,
)
from concept_probe.erasers.training.trainable import Student, Trainable
from concept_probe.types import Concept, Kind, Prompt, Sampling, evenly

if TYPE_CHECKING:
    from concept_probe.families import DiffusionSubject


@dataclass(frozen=True)
class Training:
    """How a gradient method is run."""

    steps: Count = 120
    """Gradient steps."""
    batch: Count = 4
    """Latents per step and term of the loss."""
    rate: Nonnegative = 0.01
    """Adam's step, as a multiple of the root mean square of each parameter's entries; falls to 0 along a cosine."""
    pictures: Count = 16
    """Trajectories from noise to pictures per term of the loss; every step of each gives latents to learn on."""
    sampling: Sampling = Sampling(guidance=3.0)
    """How these trajectories are made."""
    refresh: Natural = 0
    """Every so many steps the concept's trajectories are made anew, by the subject as it is then; 0: never."""
    retain: Nonnegative = 1.0
    """Weight of the retain term, that other prompts are answered as before; 0: there is none."""
    adversary: Natural = 0
    """Steps by which an adversary moves the token embeddings of the concept's prompts towards the concept."""
    reach: Nonnegative = 0.5
    """How far it may move each entry, as a multiple of the root mean square of the embeddings."""
    seed: SeedNumber = 0
    """Of everything that is drawn."""
    absolute: bool = False
    """Whether `rate` is Adam's own step for every parameter, as published settings give it."""
    constant: bool = False
    """Whether the rate stays the same."""
    in_turn: bool = False
    """Whether each refresh is of all terms, and goes on to the prompts that follow; else the concept's same prompts."""

    def __post_init__(self) -> None:
        check_arguments(self, "training")

    @property
    def step(self) -> AdamStep:
        """How far a step goes."""
        return AdamStep(self.rate, self.absolute, self.constant)


def latent_by_latent(steps: int, rate: float, **more: Any) -> Training:
    """As most of the published methods train: at each step one latent of a new trajectory of 50 steps at guidance 3, of
    the next prompt, the rate is Adam's own and stays, and nothing is retained; `more` are options that are others."""
    drawn = Training(steps, 1, rate, 1, Sampling(50, 3.0), refresh=1, retain=0.0, absolute=True, constant=True)
    return replace(drawn, in_turn=True, **more)


TINY_TRAINING = Training(steps=16, batch=8, pictures=8, sampling=TINY_SAMPLING, rate=0.02)
"""What moves a tiny random model within seconds."""


@dataclass(frozen=True)
class DistillationTerm:
    """One term of the loss: weight · |ε_student(x_t, student_prompt) - target(x_t)|²."""

    prompts: tuple[Prompt, ...]
    """Prompts whose trajectories the latents x_t are from."""
    student_prompt: Callable[[Prompt, torch.Generator], Prompt]
    """What the student is asked at a latent of a trajectory for a prompt."""
    target: Callable[[LatentBuffer], Tensor]
    """What it should predict there (n, c, h, w), by the frozen subject."""
    weight: float = 1.0
    weighting: Callable[[LatentBuffer], Tensor] | None = None
    """A further weight of each latent of a buffer (n,); None: all alike."""
    by_student: bool = False
    """Whether `target` is asked at every step, of the student as it is by then, without gradients."""
    met_for: tuple[Prompt, ...] = ()
    """Prompts whose trajectories the latents are from, where these are others than `prompts`, which are asked there in turn."""


def same_prompt(prompt: Prompt, generator: torch.Generator) -> Prompt:
    """Ask the student for what the trajectory was made for."""
    return prompt


def retain_terms(
    subject: DiffusionSubject, concept: Concept, kinds: Sequence[Kind], weight: float, met_for: Sequence[Prompt] = ()
) -> list[DistillationTerm]:
    """The term that the fit prompts of these kinds are answered as before; none where there are none, or no weight.

    At latents of their own trajectories, or of those for `met_for`.
    """
    prompts = tuple(prompt for kind in kinds for prompt in concept.prompts(kind, "fit"))
    if not prompts or not weight:
        return []
    met = tuple(met_for)
    return [DistillationTerm(prompts, same_prompt, lambda x: predictions(subject, x, x.prompts), weight, met_for=met)]


def past_anchor_term(
    subject: DiffusionSubject, prompts: Sequence[Prompt], anchors: Mapping[Prompt, Prompt], eta: float
) -> DistillationTerm:
    """The term that each prompt c of `prompts` is answered as ε(x, a) - η [ε(x, c) - ε(x, a)], a its anchor.

    Source: arXiv 2312.16145.
    """

    def target(buffer: LatentBuffer) -> Tensor:
        return extrapolated_predictions(subject, buffer, [anchors[p] for p in buffer.prompts], buffer.prompts, -eta)

    return DistillationTerm(tuple(prompts), same_prompt, target)


def retain_only(training: Training) -> Training:
    """For a method whose only term is the retain term: without what is meant for the concept's."""
    return replace(training, refresh=0, adversary=0)


def distil(
    subject: DiffusionSubject,
    student: Trainable,
    terms: Sequence[DistillationTerm],
    training: Training,
    method: str,
    also: StepLoss | None = None,
) -> list[float]:
    """Train the student on all terms together; the loss at each step.

    The first term is the concept's: its trajectories are refreshed (`in_turn` those of all terms), its prompts get the
    adversary. `also` is a loss of the method's own that is no distillation, added to theirs.
    """
    generator = torch.Generator().manual_seed(training.seed)
    of_terms = distillation_loss(subject, student, terms, training) if terms else None

    def loss(step: int, generator: torch.Generator) -> Tensor:
        return torch.stack([part(step, generator) for part in (of_terms, also) if part]).sum()

    return descend(student, loss, steps=training.steps, rate=training.step, generator=generator, method=method)


def distilled_edit(
    eraser: Eraser[Any, Edit],
    subject: DiffusionSubject,
    concept: Concept,
    student: Student,
    terms: Sequence[DistillationTerm],
    training: Training,
    strength: float,
    also: StepLoss | None = None,
) -> Edit:
    """The edit that a student learns; nothing is trained at strength 0."""
    losses = distil(subject, student, terms, training, eraser.name, also) if strength else []
    learned = student.deltas()
    deltas = {where: delta.scaled(strength) for where, delta in learned.items()} if strength else {}
    return eraser.edit(subject, concept, deltas, loss=loss_at_ends(losses), trained=len(learned))


def distillation_loss(
    subject: DiffusionSubject, student: Trainable, terms: Sequence[DistillationTerm], training: Training
) -> StepLoss:
    """What `distil` descends: the weighted gaps of all terms at a batch of each.

    Trajectories and targets are made here, by the frozen subject.
    """
    buffers = [_buffer(subject, term, training, training.seed) for term in terms]
    targets = [None if t.by_student else t.target(buffer) for t, buffer in zip(terms, buffers, strict=True)]
    # What the frozen subject predicts for the concept, which is where the adversary leads.
    own = [predictions(subject, buffers[0], buffers[0].prompts)] if training.adversary and buffers else []

    def loss(step: int, generator: torch.Generator) -> Tensor:
        if training.refresh and step and step % training.refresh == 0:
            turn = step // training.refresh if training.in_turn else 0
            for i, term in enumerate(terms if training.in_turn else terms[:1]):
                buffers[i] = _buffer(subject, term, training, training.seed + 1000 * step, turn)
            with student.reference():
                for i, term in enumerate(terms if training.in_turn else terms[:1]):
                    targets[i] = None if term.by_student else term.target(buffers[i])
                own[:] = [predictions(subject, buffers[0], buffers[0].prompts)] if own else []
        inputs, timesteps, asked, wanted, weights = [], [], [], [], []
        for term, buffer, target in zip(terms, buffers, targets, strict=True):
            index = torch.randint(len(buffer), (training.batch,), generator=generator)
            part = buffer.rows(index)
            inputs.append(part.inputs)
            timesteps.append(part.timesteps)
            asked += [term.student_prompt(p, generator) for p in part.prompts]
            wanted.append(term.target(part) if target is None else target[index])
            weights.append(term.weight * (torch.ones(len(part)) if term.weighting is None else term.weighting(part)))
            if term is terms[0] and own:
                offsets = adversarial_offsets(
                    subject,
                    part,
                    asked,
                    own[0][index],
                    steps=training.adversary,
                    epsilon=training.reach,
                    generator=generator,
                )
        with embeddings_moved(subject, offsets) if own else contextlib.nullcontext():
            condition = encode_prompts(subject, asked)
        predicted = subject.predict(torch.cat(inputs), torch.cat(timesteps), condition)
        each = (predicted - torch.cat(wanted)).float().square().flatten(1).mean(1)
        return (each * torch.cat([w.to(each) for w in weights])).sum() / training.batch

    return loss


def _buffer(
    subject: DiffusionSubject, term: DistillationTerm, training: Training, seed: int, turn: int = 0
) -> LatentBuffer:
    """Latents met for a term's prompts; in a later turn for those that follow, where there are more than trajectories."""
    every = tuple(term.met_for or term.prompts)
    at = turn * training.pictures % len(every)
    prompts = evenly((*every[at:], *every[:at]), training.pictures)
    met = collect(subject, prompts, training.pictures, training.sampling, seed)
    if not term.met_for:
        return met
    return replace(met, prompts=tuple(term.prompts[(i + turn) % len(term.prompts)] for i in range(len(met))))
