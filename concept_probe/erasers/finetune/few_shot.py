"""Few-shot unlearning: the text encoder's MLPs climb the denoising loss of a few pictures (arXiv 2405.07288)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from concept_probe.erasers.closed_form.states import moved_prompts
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import parameters_below
from concept_probe.erasers.finetune.distillation import Training, keep, others_alone
from concept_probe.erasers.finetune.esd import trained
from concept_probe.erasers.finetune.loop import Loss
from concept_probe.erasers.finetune.trainable import Whole
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Query, Sampling, Site, Subspace, evenly

if TYPE_CHECKING:
    from concept_probe.families import Subject


@runtime_checkable
class Pictured(Protocol):
    """What the method asks of a subject, beyond what every subject that denoises has."""

    def latents(self, images: Tensor) -> Tensor: ...
    def denoising_loss(self, latents: Tensor, prompts: Sequence[Prompt], generator: torch.Generator) -> Tensor: ...


def feed_forwards(subject: Subject, attentions: int, method: str) -> list[str]:
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


def shots(
    subject: Subject, concept: Concept, prompts: Sequence[Prompt], count: int, how: Sampling, seed: int
) -> Tensor:
    """At most `count` pictures (n, 3, h, w) of the concept: its examples, or without any what the subject draws."""
    if concept.examples is None or not len(concept.examples):
        return subject.generate([Query(p, seed + i) for i, p in enumerate(evenly(prompts, count))], how)
    every = concept.examples
    n = min(count, len(every))
    return every[[i * len(every) // n for i in range(n)]]


@dataclass(frozen=True)
class FewShot:
    """Train the text encoder for a few steps so that a few pictures are denoised badly under the concept's prompts.

    >>> edit = FewShot(pictures=4, training=Training(steps=8))(subject, concept)
    """

    name: ClassVar[str] = "few_shot"
    pictures: int = 4
    """How many of the concept's example pictures are used at most; where it has none, the subject draws as many."""
    attentions: int = 1
    """Of how many of the last layers the self-attention is trained beside the MLPs."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that the pictures are denoised under."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) of the retain lesson, which the paper does without."""
    training: Training = Training(steps=32, rate=0.0075, retain=10.0)
    """How it is trained; few `steps` are what stops it, for the loss has no floor."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit:
        """`found` is not used. ValueError where the concept has no prompts in `sources`, or no picture is asked for."""
        if self.pictures < 1:
            raise ValueError(f"{self.name}: pictures is {self.pictures}; it learns from one picture or more")
        moved = tuple(moved_prompts(concept, self.sources, self.name))
        student = Whole(subject, feed_forwards(subject, self.attentions, self.name))
        also = self._climb(subject, concept, moved) if self.strength else None
        others = [prompt for kind in self.preserve for prompt in concept.prompts(kind, "fit")]
        lessons = keep(subject, others, self.training.retain, self.name)
        return trained(self, subject, concept, student, lessons, others_alone(self.training), self.strength, also)

    def _climb(self, subject: Subject, concept: Concept, moved: Sequence[Prompt]) -> Loss:
        """-|ε_θ(x_t, c) - ε|² of a batch of pictures, noise and timesteps drawn anew."""
        if not isinstance(subject, Pictured):
            raise TypeError(f"{self.name}: {subject.name!r} is no denoiser; this method needs a text-to-image pipeline")
        model, options = subject, self.training
        with torch.no_grad():
            images = shots(subject, concept, moved, self.pictures, options.sampling, options.seed)
            latents = model.latents(images.to(subject.device, subject.dtype))

        def loss(step: int, generator: torch.Generator) -> Tensor:
            rows = torch.randint(len(latents), (options.batch,), generator=generator)
            texts = torch.randint(len(moved), (options.batch,), generator=generator).tolist()
            return -model.denoising_loss(latents[rows.to(latents.device)], [moved[i] for i in texts], generator)

        return loss
