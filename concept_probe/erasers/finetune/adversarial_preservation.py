"""Adversarial preservation: erase, and keep whatever the erasure harms most at the time (arXiv 2410.15618)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from concept_probe.erasers.closed_form.states import moved_prompts
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import Training
from concept_probe.erasers.finetune.esd import Part, parameters_of, trained
from concept_probe.erasers.finetune.negative_guidance import Base, away
from concept_probe.erasers.finetune.replay import conditions, denoiser, predictions, walks
from concept_probe.erasers.finetune.trainable import Whole
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Sampling, Subspace, evenly

if TYPE_CHECKING:
    from concept_probe.families import Subject

SEARCHED = 2
"""Steps of each candidate's walk, drawn anew each time, that a search looks at."""


class Adversary:
    """Knows what the frozen subject says of candidates, and finds those that a student answers worst.

    Made before training; called during it, it is the preserving term of the loss.
    """

    def __init__(
        self, subject: Subject, candidates: Sequence[Prompt], sampling: Sampling, *, worst: int, every: int, batch: int,
        weight: float, seed: int, method: str,
    ) -> None:  # fmt: skip
        """One walk per candidate. `worst` of them are kept at a time, found anew each `every` steps."""
        self.subject, self.candidates, self.method = subject, tuple(candidates), method
        self.worst, self.every, self.batch, self.weight = worst, every, batch, weight
        self.pool = walks(subject, candidates, len(candidates), sampling, seed)
        self.own = predictions(subject, self.pool, self.pool.prompts, method)
        place = {prompt: i for i, prompt in enumerate(self.candidates)}
        of = [place[p] for p in self.pool.prompts]
        self.rows = torch.tensor([[j for j, i in enumerate(of) if i == k] for k in range(len(self.candidates))])
        """(candidates, steps): the latents of each one's walk"""
        self.chosen: list[list[int]] = []
        """Which candidates each search found, the most harmed first."""

    @torch.no_grad()
    def harm(self, steps: Tensor) -> Tensor:
        """|ε_θ(x, p) - ε(x, p)|² (candidates,) of each candidate p, averaged over some steps of its walk."""
        index = self.rows[:, steps].flatten()
        part = self.pool.rows(index)
        said = predictions(self.subject, part, part.prompts, self.method)
        return (said - self.own[index]).float().square().flatten(1).mean(1).view(len(self.rows), -1).mean(1)

    def __call__(self, step: int, generator: torch.Generator) -> Tensor:
        """The weighted error of the candidates that are kept at the time, with gradients."""
        if step % self.every == 0:
            # A random choice at first: before anything is learned there is no harm to tell candidates apart by.
            if step:
                score = self.harm(torch.randperm(self.rows.shape[1], generator=generator)[:SEARCHED])
            else:
                score = torch.rand(len(self.rows), generator=generator)
            self.chosen.append(score.topk(self.worst).indices.tolist())
        kept = torch.tensor(self.chosen[-1])
        which = kept[torch.randint(len(kept), (self.batch,), generator=generator)]
        index = self.rows[which, torch.randint(self.rows.shape[1], (self.batch,), generator=generator)]
        part = self.pool.rows(index)
        model = denoiser(self.subject, self.method)
        said = model.predict(part.seen, part.timesteps, conditions(self.subject, part.prompts, self.method))
        return self.weight * (said - self.own[index]).float().square().mean()


@dataclass(frozen=True)
class AdversarialPreservation:
    """ESD with an opponent that asks, every few steps, for what the student has harmed most by then.

    >>> edit = AdversarialPreservation(worst=1, every=2, training=Training(steps=300))(subject, concept)
    """

    name: ClassVar[str] = "adversarial_preservation"
    part: Part = "x"
    """What is trained; see `Esd`."""
    eta: float = 1.0
    """η: how far past its base the concept's prompt is led; see `Esd`."""
    base: Base = "empty"
    """What that is: the `empty` prompt, or the concept's `anchor`; see `Esd`."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) that the adversary chooses from."""
    candidates: int = 32
    """How many of them at most, evenly spaced; each costs a walk, and a share of every search."""
    worst: int = 8
    """How many of the most harmed are kept at a time; the paper keeps one."""
    every: int = 5
    """Steps between two searches."""
    training: Training = Training(steps=100, retain=3.0)
    """How it is trained; `retain` is the weight of what is kept."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit:
        """`found` is not used. ValueError where the concept has no prompts in `sources` or too few to choose from."""
        moved = tuple(moved_prompts(concept, self.sources, self.name))
        if self.every < 1 or self.worst < 1:
            raise ValueError(f"{self.name}: every is {self.every} and worst {self.worst}; both are 1 or more")
        every = tuple(dict.fromkeys(p for kind in self.preserve for p in concept.prompts(kind, "fit")))
        vocabulary = evenly(every, self.candidates)
        if len(vocabulary) < self.worst:
            raise ValueError(
                f"{self.name}: {self.worst} candidates are to be kept at a time, and concept {concept.name!r} has "
                f"{len(vocabulary)} in {', '.join(self.preserve) or 'no list'} (fit split, at most {self.candidates})"
            )
        student = Whole(subject, parameters_of(subject, self.part, self.name))
        lesson = away(subject, concept, moved, self.eta, self.base, self.name)
        options = self.training
        adversary = None
        if self.strength and options.retain:
            adversary = Adversary(
                subject, vocabulary, options.sampling, worst=self.worst, every=self.every, batch=options.batch,
                weight=options.retain, seed=options.seed, method=self.name,
            )  # fmt: skip
        edit = trained(self, subject, concept, student, [lesson], options, self.strength, adversary)
        kept = Counter(vocabulary[i].text for found in adversary.chosen for i in found) if adversary else {}
        return replace(edit, made_by={**edit.made_by, "candidates": len(vocabulary), "kept": dict(kept)})
