"""Receler: small erasers behind cross-attention, trained under an adversary (arXiv 2311.17717)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from concept_probe.activations import tap
from concept_probe.activations.tap import Look
from concept_probe.erasers.closed_form.states import moved_prompts
from concept_probe.erasers.erasure.deltas import Delta
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.erasure.provenance import made_by
from concept_probe.erasers.finetune.distillation import Training, keep, teach
from concept_probe.erasers.finetune.loop import ends
from concept_probe.erasers.finetune.negative_guidance import Base, away
from concept_probe.erasers.finetune.trainable import Beside
from concept_probe.types import OTHER_KINDS, Concept, Kind, Moment, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


class Bottlenecks(Beside):
    """x + U gelu(D x) at each site; U starts at 0, D (d, rank) at random."""

    def __init__(self, subject: Subject, sites: Sequence[Site], widths: dict[Site, int], rank: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.subject = subject
        self.down, self.up = {}, {}
        for site in sites:
            d = widths[site]
            drawn = torch.randn(d, rank, generator=generator) / d**0.5
            self.down[site] = nn.Parameter(drawn.to(subject.device), requires_grad=False)
            self.up[site] = nn.Parameter(torch.zeros(rank, d, device=subject.device), requires_grad=False)

    def written(self, site: Site, x: Tensor) -> Tensor:
        """U gelu(D x), in the shape and dtype of x (b, patches, d)."""
        hidden = nn.functional.gelu(x.float() @ self.down[site])
        return (hidden @ self.up[site]).to(x.dtype)

    def groups(self, rate: float) -> list[dict[str, Any]]:
        return [{"params": [*self.down.values(), *self.up.values()], "lr": rate}]

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        def put(site: Site) -> Look:
            return lambda x, m: None if self.resting else x + self.written(site, x)

        every = [*self.down.values(), *self.up.values()]
        try:
            for p in every:
                p.requires_grad_(True)
            with tap(self.subject, {site: put(site) for site in self.down}):
                yield
        finally:
            for p in every:
                p.requires_grad_(False)
                p.grad = None

    def deltas(self) -> dict[str, Delta]:
        return {}


@dataclass(frozen=True)
class Receler:
    """Train a bottleneck behind each cross-attention to undo the concept, also where an adversary words it.

    >>> guard = Receler(rank=32, training=Training(steps=300, adversary=5))(subject, concept)
    """

    name: ClassVar[str] = "receler"
    rank: int = 16
    """Width of each bottleneck."""
    eta: float = 1.0
    """η: how far past its base the concept's prompt is led; see `Esd`."""
    base: Base = "empty"
    """What that is: the `empty` prompt, or the concept's `anchor`; see `Esd`."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) of the retain lesson."""
    training: Training = Training(adversary=2, rate=0.002)
    """How it is trained; the rate is Adam's own, in the units of the activations."""
    strength: float = 1.0
    """Factor on what the bottlenecks write; at 0 nothing is trained."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Intervention:
        """`found` is not used. ValueError where the concept has no prompts in `sources`."""
        moved = tuple(moved_prompts(concept, self.sources, self.name))
        sites = subject.sites("cross_out")
        values = subject.sites("cross_query")
        widths = {
            s: subject.matrix(Site(q.component, q.path, "weight")).shape[1] for s, q in zip(sites, values, strict=True)
        }
        student = Bottlenecks(subject, sites, widths, self.rank, self.training.seed)
        lessons = [away(subject, concept, moved, self.eta, self.base, self.name)]
        others = [prompt for kind in self.preserve for prompt in concept.prompts(kind, "fit")]
        lessons += keep(subject, others, self.training.retain, self.name)
        losses = teach(subject, student, lessons, self.training, self.name) if self.strength else []
        actions: dict[Site, Change] = {site: _action(student, site) for site in sites}
        origin = made_by(self, subject, concept, loss=ends(losses))
        return Intervention(self.name, concept.name, actions, self.strength, origin)


def _action(student: Bottlenecks, site: Site) -> Change:
    def change(x: Tensor, moment: Moment) -> Tensor:
        return student.written(site, x)

    return change
