"""Adversarial preservation: erase, and keep whatever the erasure harms most at the time (arXiv 2410.15618)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from concept_probe.arguments import Count
from concept_probe.erasers.closed_form.states import prompts_to_erase
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import TINY_TRAINING, Training, distilled_edit, latent_by_latent
from concept_probe.erasers.finetune.negative_guidance import GuidanceBase, negative_guidance_term
from concept_probe.erasers.finetune.parts import DenoiserPart, denoiser_parameters
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.replay import collect, encode_distinct, predictions
from concept_probe.erasers.training.trainable import FullWeights
from concept_probe.families import DiffusionSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Subspace, evenly

SEARCHED = 2
"""Steps of each candidate's trajectory, drawn anew each time, that a search looks at."""


@dataclass(frozen=True)
class AdversarialPreservation(Eraser[DiffusionSubject, Edit]):
    """ESD with an opponent that asks, every few steps, for what the student has harmed most by then.

    >>> edit = AdversarialPreservation(worst=1, every=2, training=Training(steps=300))(subject, concept)
    """

    name = "adversarial_preservation"
    makes = "edit"
    on = "pictures"
    aims = "to_empty"
    origin = "published"
    authors = Published(
        {
            "worst": 1,
            "every": 1,
            "training": latent_by_latent(1000, 1e-5, retain=1.0),
        },
        apart="the kept word is a Gumbel sample among 100 clusters of the vocabulary",
    )
    part: DenoiserPart = "x"
    """What is trained; see `Esd`."""
    eta: float = 1.0
    """η: how far past its base the concept's prompt is led; see `Esd`."""
    base: GuidanceBase = "empty"
    """What that is: the `empty` prompt, or the concept's `anchor`; see `Esd`."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) that the adversary chooses from."""
    candidates: Count = 32
    """How many of them at most, evenly spaced; each costs a trajectory, and a share of every search."""
    worst: Count = 8
    """How many of the most harmed are kept at a time; the paper keeps one."""
    every: int = 5
    """Steps between two searches."""
    training: Training = Training(steps=100, retain=3.0)
    """How it is trained; `retain` is the weight of what is kept."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(candidates=4, worst=1, every=4, training=replace(TINY_TRAINING, pictures=4))

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where the concept has no prompts in `sources` or too few to choose from."""
        moved = tuple(prompts_to_erase(concept, self.sources, self.name))
        if self.every < 1 or self.worst < 1:
            raise ValueError(f"{self.name}: every is {self.every} and worst {self.worst}; both are 1 or more")
        every = tuple(dict.fromkeys(p for kind in self.preserve for p in concept.prompts(kind, "fit")))
        vocabulary = evenly(every, self.candidates)
        if len(vocabulary) < self.worst:
            raise ValueError(
                f"{self.name}: {self.worst} candidates are to be kept at a time, and concept {concept.name!r} has "
                f"{len(vocabulary)} in {', '.join(self.preserve) or 'no list'} (fit split, at most {self.candidates})"
            )
        student = FullWeights(subject, denoiser_parameters(subject, self.part))
        term = negative_guidance_term(subject, concept, moved, self.eta, self.base, self.name)
        adversary = Adversary(self, subject, vocabulary) if self.strength and self.training.retain else None
        edit = distilled_edit(self, subject, concept, student, [term], self.training, self.strength, adversary)
        kept = Counter(vocabulary[i].text for found in adversary.chosen for i in found) if adversary else {}
        return replace(edit, made_by={**edit.made_by, "candidates": len(vocabulary), "kept": dict(kept)})


class Adversary:
    """Knows what the frozen subject predicts for candidates, and finds those that a student answers worst.

    Made before training; called during it, it is the retain term of the loss.
    """

    def __init__(
        self, eraser: AdversarialPreservation, subject: DiffusionSubject, candidates: Sequence[Prompt]
    ) -> None:
        """One trajectory per candidate; of `eraser` the options are read."""
        self.eraser, self.subject, self.candidates = eraser, subject, tuple(candidates)
        training = eraser.training
        self.buffer = collect(subject, candidates, len(candidates), training.sampling, training.seed)
        self.own = predictions(subject, self.buffer, self.buffer.prompts)
        place = {prompt: i for i, prompt in enumerate(self.candidates)}
        of = [place[p] for p in self.buffer.prompts]
        self.rows = torch.tensor([[j for j, i in enumerate(of) if i == k] for k in range(len(self.candidates))])
        """(candidates, steps): the latents of each one's trajectory"""
        self.chosen: list[list[int]] = []
        """Which candidates each search found, the most harmed first."""

    @torch.no_grad()
    def harm(self, steps: Tensor) -> Tensor:
        """|ε_θ(x, p) - ε(x, p)|² (candidates,) of each candidate p, averaged over some steps of its trajectory."""
        index = self.rows[:, steps].flatten()
        part = self.buffer.rows(index)
        now = predictions(self.subject, part, part.prompts)
        return (now - self.own[index]).float().square().flatten(1).mean(1).view(len(self.rows), -1).mean(1)

    def __call__(self, step: int, generator: torch.Generator) -> Tensor:
        """The weighted error of the candidates that are kept at the time, with gradients."""
        training = self.eraser.training
        if step % self.eraser.every == 0:
            # A random choice at first: before anything is learned there is no harm to tell candidates apart by.
            if step:
                score = self.harm(torch.randperm(self.rows.shape[1], generator=generator)[:SEARCHED])
            else:
                score = torch.rand(len(self.rows), generator=generator)
            self.chosen.append(score.topk(self.eraser.worst).indices.tolist())
        kept = torch.tensor(self.chosen[-1])
        which = kept[torch.randint(len(kept), (training.batch,), generator=generator)]
        index = self.rows[which, torch.randint(self.rows.shape[1], (training.batch,), generator=generator)]
        part = self.buffer.rows(index)
        now = self.subject.predict(part.inputs, part.timesteps, encode_distinct(self.subject, part.prompts))
        return training.retain * (now - self.own[index]).float().square().mean()
