"""Few-shot unlearning: the text encoder's MLPs climb the denoising loss of a few pictures (arXiv 2405.07288)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from concept_probe.arguments import Count
from concept_probe.erasers.closed_form.states import prompts_to_erase
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import parameters_below
from concept_probe.erasers.finetune.distillation import (
    TINY_TRAINING,
    Training,
    distilled_edit,
    latent_by_latent,
    retain_only,
    retain_terms,
)
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.denoising import denoising_loss
from concept_probe.erasers.training.loop import StepLoss
from concept_probe.erasers.training.trainable import FullWeights
from concept_probe.families import DiffusionSubject, Subject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Query, Sampling, Site, Subspace, evenly


def feed_forward_parameters(subject: Subject, attentions: int, method: str) -> list[str]:
    """Addresses of the parameters of every text encoder's MLPs, and of the self-attention of its last `attentions` layers.

    Layers behind the one that cross-attention reads are left out. ValueError for more attentions than there are layers.
    """
    out = []
    streams, mlps = subject.sites("text_stream"), subject.sites("text_mlp_out")
    for end in subject.sites("text_out"):
        layers = [s for s in streams if s.component == end.component]
        used = layers.index(end) + 1 if end in layers else len(layers)
        if not 0 <= attentions <= used:
            raise ValueError(f"{method}: attentions is {attentions}; {end.component} has {used} layers that are read")
        chosen = [s for s in mlps if s.component == end.component][:used]
        for layer in layers[used - attentions : used]:
            inside = subject.module(layer).named_modules()
            chosen += [Site(end.component, f"{layer.path}.{name}") for name, m in inside if hasattr(m, "q_proj")]
        out += [where for site in chosen for where in parameters_below(subject, site)]
    return out


def example_images(
    subject: DiffusionSubject, concept: Concept, prompts: Sequence[Prompt], count: int, sampling: Sampling, seed: int
) -> Tensor:
    """At most `count` pictures (n, 3, h, w) of the concept: its examples, or without any what the subject draws."""
    if concept.examples is None or not len(concept.examples):
        return subject.generate([Query(p, seed + i) for i, p in enumerate(evenly(prompts, count))], sampling)
    every = concept.examples
    n = min(count, len(every))
    return every[[i * len(every) // n for i in range(n)]]


@dataclass(frozen=True)
class FewShot(Eraser[DiffusionSubject, Edit]):
    """Train the text encoder for a few steps so that a few pictures are denoised badly under the concept's prompts.

    >>> edit = FewShot(pictures=4, training=Training(steps=8))(subject, concept)
    """

    name = "few_shot"
    makes = "edit"
    on = "pictures"
    aims = "examples"
    origin = "published"
    authors = Published(
        {"preserve": (), "training": latent_by_latent(20, 1e-5, refresh=0)},
        apart="five passes over four pictures, in AdamW",
    )
    pictures: Count = 4
    """How many of the concept's example pictures are used at most; where it has none, the subject draws as many."""
    attentions: int = 1
    """Of how many of the last layers the self-attention is trained beside the MLPs."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that the pictures are denoised under."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) of the retain term, which the paper does without."""
    training: Training = Training(steps=32, rate=0.0075, retain=10.0)
    """How it is trained; few `steps` are what stops it, for the loss has no floor."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(training=replace(TINY_TRAINING, steps=8, rate=0.01, retain=0.0))

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where the concept has no prompts in `sources`, or no picture is asked for."""
        if self.pictures < 1:
            raise ValueError(f"{self.name}: pictures is {self.pictures}; it learns from one picture or more")
        moved = tuple(prompts_to_erase(concept, self.sources, self.name))
        student = FullWeights(subject, feed_forward_parameters(subject, self.attentions, self.name))
        also = self._ascent(subject, concept, moved) if self.strength else None
        terms = retain_terms(subject, concept, self.preserve, self.training.retain)
        return distilled_edit(self, subject, concept, student, terms, retain_only(self.training), self.strength, also)

    def _ascent(self, subject: DiffusionSubject, concept: Concept, moved: Sequence[Prompt]) -> StepLoss:
        """-|ε_θ(x_t, c) - ε|² of a batch of pictures, noise and timesteps drawn anew."""
        options = self.training
        with torch.no_grad():
            images = example_images(subject, concept, moved, self.pictures, options.sampling, options.seed)
        descent = denoising_loss(subject, images, moved, options.batch)
        return lambda step, generator: -descent(generator)
