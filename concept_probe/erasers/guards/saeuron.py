"""SAeUron: features of the denoiser's patches, chosen and replaced step by step (arXiv 2501.18052)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Self

import torch
from torch import Tensor

from concept_probe.arguments import Bounds, Count
from concept_probe.erasers.eraser import TINY_SAMPLING, Eraser
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.guards.autoencoders import timesteps_met
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.families import DiffusionSubject
from concept_probe.find.features.contrast import contrast
from concept_probe.find.layout import back, last
from concept_probe.find.rows import ConceptRows, RowQuery, concept_rows
from concept_probe.types import Concept, Moment, Sampling, SparseCoder, Subspace

Percentile = Annotated[float, Bounds(0, 100)]


@dataclass(frozen=True)
class Timetable:
    """For each of s denoising steps, m features of one autoencoder and what is done with them."""

    timesteps: Tensor
    """(s,)"""
    features: Tensor
    """(s, m) long, strongest contrast first"""
    floor: Tensor
    """(s, m): a patch is edited where a feature exceeds this, its mean over all prompts"""
    typical: Tensor
    """(s, m): mean over the concept's prompts"""

    def nearest(self, timestep: float | None) -> int:
        """The row for a timestep; outside a trajectory, where none is known, the middle one."""
        if timestep is None:
            return len(self.timesteps) // 2
        return int((self.timesteps - timestep).abs().argmin())


@torch.no_grad()
def strongest_by_step(codec: SparseCoder, rows: ConceptRows, count: int) -> Tensor:
    """(s, m) long: the `count` features of largest contrast at each denoising step of `rows`."""
    scored = contrast(codec, rows, "share")
    chosen = []
    for step in rows.step.unique().tolist():
        lines = [i for i, (_, _, at) in enumerate(scored.groups) if at == step]
        chosen.append(scored.table[lines].amax(0).topk(min(count, codec.width)).indices)
    return torch.stack(chosen)


@torch.no_grad()
def timetable(codec: SparseCoder, rows: ConceptRows, timesteps: dict[int, float], features: Tensor) -> Timetable:
    """What is done with `features` (s, m) at each step: their means over all patches and over the concept's."""
    times, floors, typicals = [], [], []
    for step, of_step in zip(rows.step.unique().tolist(), features, strict=True):
        here = rows.select(rows.step == step)
        times.append(timesteps.get(step, 0))
        floors.append(_means(codec, here.x, of_step))
        typicals.append(_means(codec, here.x[here.concept], of_step))
    return Timetable(torch.tensor(times), features, torch.stack(floors), torch.stack(typicals))


def _means(codec: SparseCoder, x: Tensor, features: Tensor) -> Tensor:
    total = torch.zeros(len(features))
    for part in x.split(8192):
        total += codec.encode(part).dense(codec.width)[:, features].sum(0).float()
    return total / max(len(x), 1)


@dataclass(frozen=True)
class Saeuron(Eraser[DiffusionSubject, Intervention]):
    """In patches where a feature of the concept exceeds its mean, set it to γ times its mean on the concept.

    >>> guard = Saeuron(count=4, gamma=-4.0)(subject, concept, found)
    """

    name = "saeuron"
    makes = "guard"
    on = "pictures"
    needs = Needs(found="patch_features")
    aims = "patches"
    origin = "published"
    authors = Published(
        {"gamma": -1.0, "multiply": True, "percentile": 99.999},
        apart="multipliers of objects are searched for each, down to -30; the kept error has the opposite sign",
    )
    count: int = 2
    """Features per denoising step."""
    gamma: float = -2.0
    """γ: what a firing feature is set to, as a multiple of its mean on the concept at that step."""
    steps: tuple[int, ...] = ()
    """Denoising steps that features are chosen for; empty: all. Each step of a later trajectory takes the nearest."""
    sampling: Sampling = Sampling()
    """The trajectories that features are chosen on."""
    limit: Count | None = 4
    """Prompts of each list (fit split) that are drawn, one picture each; None: all."""
    strength: float = 1.0
    """Factor on the change."""
    multiply: bool = False
    """Whether a firing feature is multiplied by γ times its mean on the concept, as published, and not set to that."""
    percentile: Percentile | None = None
    """In place of `count`: the features of each step whose contrast lies beyond this percentile of all, as published, 99.999."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(sampling=TINY_SAMPLING, limit=2)

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """`found`: Subspaces with an autoencoder over patches; which features it names does not matter."""
        codecs = {space.site: space.codec for space in found if space.codec is not None}
        which = RowQuery(limit=self.limit, steps=list(self.steps) or None, sampling=self.sampling)
        sites = list(codecs)
        with timesteps_met(subject, sites[0]) as seen:
            rows = concept_rows(subject, concept, sites, "fit", which)
        tables = {
            site: timetable(codec, rows[site], seen, strongest_by_step(codec, rows[site], self.counted(codec.width)))
            for site, codec in codecs.items()
        }
        actions = {site: self._action(codecs[site], table) for site, table in tables.items()}
        features = {str(site): table.features.tolist() for site, table in tables.items()}
        return self.guard(concept, actions, features=features)

    def counted(self, width: int) -> int:
        """How many of `width` features are edited per step: of different scores, those above the percentile; one at least."""
        if self.percentile is None:
            return self.count
        return max(width - 1 - math.floor((width - 1) * self.percentile / 100), 1)

    def _action(self, codec: SparseCoder, table: Timetable) -> Change:
        def change(x: Tensor, moment: Moment) -> Tensor | None:
            row = table.nearest(moment.timestep)
            features = table.features[row].to(x.device)
            codes = codec.encode(last(x))
            values = codes.dense(codec.width)[..., features]
            fires = values > table.floor[row].to(values).clamp_min(0)
            if not fires.any():
                return None
            goal = self.gamma * table.typical[row].to(values)
            shift = torch.where(fires, (goal * values if self.multiply else goal) - values, 0)
            written = codes.in_row_units(shift @ codec.decoder.detach()[features].to(shift))
            return back(written.to(x.dtype))

        return change
