"""Receler: small erasers behind cross-attention, trained under an adversary (arXiv 2311.17717)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from concept_probe.activations import tap
from concept_probe.activations.tap import Look
from concept_probe.arguments import Count
from concept_probe.erasers.closed_form.states import prompts_to_erase
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.finetune.distillation import TINY_TRAINING, Training, distil, latent_by_latent, retain_terms
from concept_probe.erasers.finetune.negative_guidance import GuidanceBase, negative_guidance_term
from concept_probe.erasers.finetune.parts import weights_at
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import loss_at_ends
from concept_probe.erasers.training.trainable import HookDelta, Trainable
from concept_probe.families import DiffusionSubject
from concept_probe.families.state import with_gradients
from concept_probe.types import OTHER_KINDS, Concept, Kind, Moment, Site, Subspace


class Bottlenecks(HookDelta, Trainable):
    """x + U gelu(D x) at each site, or x + U gelu(D x + a) + b with `biases`; U, a and b start at 0, D (d, rank) at random."""

    def __init__(
        self, subject: DiffusionSubject, sites: Sequence[Site], widths: dict[Site, int], rank: int, seed: int,
        biases: bool = False,
    ) -> None:  # fmt: skip
        generator = torch.Generator().manual_seed(seed)
        self.subject = subject
        self.down, self.up = {}, {}
        self.shifts: dict[Site, tuple[nn.Parameter, nn.Parameter]] = {}
        """a (rank,) and b (d,) of each site; none without biases."""
        for site in sites:
            d = widths[site]
            drawn = torch.randn(d, rank, generator=generator) / d**0.5
            self.down[site] = nn.Parameter(drawn.to(subject.device), requires_grad=False)
            self.up[site] = nn.Parameter(torch.zeros(rank, d, device=subject.device), requires_grad=False)
            if biases:
                a, b = (nn.Parameter(torch.zeros(n, device=subject.device), requires_grad=False) for n in (rank, d))
                self.shifts[site] = (a, b)

    def written(self, site: Site, x: Tensor) -> Tensor:
        """U gelu(D x), with biases U gelu(D x + a) + b, in the shape and dtype of x (b, patches, d)."""
        a, b = self.shifts.get(site, (0.0, 0.0))
        hidden = nn.functional.gelu(x.float() @ self.down[site] + a)
        return (hidden @ self.up[site] + b).to(x.dtype)

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained."""
        return [*self.down.values(), *self.up.values(), *(x for pair in self.shifts.values() for x in pair)]

    def groups(self, rate: float) -> list[dict[str, Any]]:
        return [{"params": self.parameters(), "lr": rate}]

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        def put(site: Site) -> Look:
            return lambda x, m: None if self.disabled else x + self.written(site, x)

        with (
            with_gradients(self.parameters()),
            tap(self.subject, {site: put(site) for site in self.down}),
        ):
            yield


@dataclass(frozen=True)
class Receler(Eraser[DiffusionSubject, Intervention]):
    """Train a bottleneck behind each cross-attention to undo the concept, also where an adversary words it.

    >>> guard = Receler(rank=32, training=Training(steps=300, adversary=5))(subject, concept)
    """

    name = "receler"
    makes = "guard"
    on = "pictures"
    aims = "to_empty"
    origin = "published"
    authors = Published(
        {
            "rank": 128,
            "biases": True,
            "training": latent_by_latent(500, 3e-4, adversary=50),
        },
        apart="the adversary learns 16 states behind the prompt; what is written outside a mask of attention is held at 0",
    )
    rank: Count = 16
    """Width of each bottleneck."""
    eta: float = 1.0
    """η: how far past its base the concept's prompt is led; see `Esd`."""
    base: GuidanceBase = "empty"
    """What that is: the `empty` prompt, or the concept's `anchor`; see `Esd`."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) of the retain term."""
    training: Training = Training(adversary=2, rate=0.002)
    """How it is trained; the rate is Adam's own, in the units of the activations."""
    strength: float = 1.0
    """Factor on what the bottlenecks write; at 0 nothing is trained."""
    biases: bool = False
    """Whether both matrices of a bottleneck have a bias, as published; what the second one writes is the same for every prompt."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(training=replace(TINY_TRAINING, adversary=2))

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """ValueError where the concept has no prompts in `sources`."""
        moved = tuple(prompts_to_erase(concept, self.sources, self.name))
        sites = subject.sites(subject.counterpart("cross_out"))
        queries = weights_at(subject, ["cross_query"])
        widths = {s: subject.matrix(q).shape[1] for s, q in zip(sites, queries, strict=True)}
        student = Bottlenecks(subject, sites, widths, self.rank, self.training.seed, self.biases)
        terms = [negative_guidance_term(subject, concept, moved, self.eta, self.base, self.name)]
        terms += retain_terms(subject, concept, self.preserve, self.training.retain)
        losses = distil(subject, student, terms, self.training, self.name) if self.strength else []
        actions: dict[Site, Change] = {site: _write(student, site) for site in sites}
        return self.guard(concept, actions, loss=loss_at_ends(losses))


def _write(student: Bottlenecks, site: Site) -> Change:
    def change(x: Tensor, moment: Moment) -> Tensor:
        return student.written(site, x)

    return change
