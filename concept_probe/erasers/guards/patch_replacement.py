"""Patch replacement: an autoencoder says where the concept is, and those patches are taken from a picture without it
(arXiv 2606.31699)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from concept_probe.arguments import Count
from concept_probe.erasers.eraser import TINY_SAMPLING, Eraser
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.guards.autoencoders import timesteps_met
from concept_probe.erasers.guards.requery import Requery
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.families import DiffusionSubject
from concept_probe.find.features.contrast import contrast
from concept_probe.find.layout import back, last
from concept_probe.find.rows import ConceptRows, RowQuery, concept_rows
from concept_probe.types import Concept, Moment, Sampling, Site, SparseCoder, Subspace


@dataclass(frozen=True)
class PatchDetector:
    """Which patches show the concept, at each of s denoising steps: those whose m features together exceed a floor."""

    codec: SparseCoder
    timesteps: Tensor
    """(s,)"""
    features: Tensor
    """(s, m) long"""
    floors: Tensor
    """(s,)"""

    def __call__(self, x: Float[Tensor, "b ..."], moment: Moment) -> Bool[Tensor, "b ..."]:
        """The patches of an activation where the concept fires: x without its width.

        The nearest timestep counts; outside a trajectory, where none is known, the middle one.
        """
        row = len(self.timesteps) // 2
        if moment.timestep is not None:
            row = int((self.timesteps - moment.timestep).abs().argmin())
        return summed_firing(self.codec, last(x), self.features[row]) > self.floors[row].to(x.device)


def summed_firing(codec: SparseCoder, x: Float[Tensor, "... d"], features: Tensor) -> Float[Tensor, "..."]:
    """Sum of some features' activations in each row."""
    codes = codec.encode(x)
    ours = torch.isin(codes.indices, features.to(codes.indices.device))
    return torch.where(ours, codes.values, 0).sum(-1).float()


@torch.no_grad()
def distinctive_features(codec: SparseCoder, rows: ConceptRows, count: int) -> Tensor:
    """(s, m) long: at each denoising step, the `count` features that fire more on each list of the concept's prompts
    than on any other thing, by their margin (see `find.contrast`) averaged over those lists.

    Where fewer than `count` fire on the concept at all, the strongest fills their places: twice counts once.
    """
    scored = contrast(codec, rows, "margin")
    chosen = []
    for step in rows.step.unique().tolist():
        lines = [i for i, (_, _, at) in enumerate(scored.groups) if at == step]
        margin = scored.table[lines].mean(0)
        codes = codec.encode(rows.x[(rows.step == step) & rows.concept])
        silent = torch.ones(codec.width, dtype=torch.bool, device=margin.device)
        silent[codes.indices[codes.values > 0].to(margin.device)] = False
        margin[silent] = -torch.inf  # what never fires has a margin of 0, more than many that do
        best = margin.topk(min(count, codec.width)).indices
        chosen.append(torch.where(silent[best], best[0], best))
    return torch.stack(chosen)


@torch.no_grad()
def fit_detector(
    codec: SparseCoder, fit: ConceptRows, held: ConceptRows, timesteps: dict[int, float], count: int, quantile: float
) -> PatchDetector:
    """Features of largest margin on `fit`; floors that a share `quantile` of other prompts' patches in `held` keep."""
    features = distinctive_features(codec, fit, count)
    times, floors = [], []
    for step, of_step in zip(fit.step.unique().tolist(), features, strict=True):
        others = held.select((held.step == step) & ~held.concept)
        fires = torch.cat([summed_firing(codec, part, of_step) for part in others.x.split(8192)])
        times.append(timesteps.get(step, 0))
        floors.append(fires.sort().values[min(int(quantile * len(fires)), len(fires) - 1)])
    return PatchDetector(codec, torch.tensor(times), features, torch.stack(floors))


@dataclass(frozen=True)
class PatchReplacement(Eraser[DiffusionSubject, Intervention]):
    """Replace the patches in which the concept fires by those of the same latents under a text without it.

    >>> guard = PatchReplacement(at="prediction")(subject, concept, found)
    """

    name = "patch_replacement"
    makes = "guard"
    asks = True
    on = "pictures"
    needs = Needs(found="patch_features")
    aims = "patches"
    origin = "published"
    authors = Published(read_in="nowhere")
    text: str = ""
    """What the patches are taken from: the same latents at the same step, asked for this."""
    at: Literal["site", "prediction"] = "prediction"
    """What is replaced: the activation that the autoencoder reads (`site`), as in the paper, or what the denoiser
    says there (`prediction`), through whichever block the concept came."""
    count: int = 16
    """Features per denoising step."""
    quantile: float = 0.9
    """Share of the patches of other prompts (select split) that count as free of the concept."""
    steps: tuple[int, ...] = ()
    """Denoising steps that features are chosen for; empty: all. Each step of a later trajectory takes the nearest."""
    sampling: Sampling = Sampling()
    """The trajectories that features and floors are chosen on."""
    limit: Count | None = 8
    """Prompts of each list that are drawn, one picture each; None: all."""
    strength: float = 1.0
    """Factor on the change: between 0 and 1, both are mixed."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(at="site", count=16, quantile=0.2, sampling=TINY_SAMPLING, limit=2)

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """`found`: Subspaces with an autoencoder over patches; which features it names does not matter."""
        codecs = {space.site: space.codec for space in found if space.codec is not None}
        which = RowQuery(limit=self.limit, steps=list(self.steps) or None, sampling=self.sampling)
        with timesteps_met(subject, next(iter(codecs))) as timesteps:
            fit = concept_rows(subject, concept, list(codecs), "fit", which)
        held = concept_rows(subject, concept, list(codecs), "select", which)
        detectors = {
            site: fit_detector(codec, fit[site], held[site], timesteps, self.count, self.quantile)
            for site, codec in codecs.items()
        }
        replacer = Replacer(Requery(subject, self.text))
        out = subject.sites("denoiser_out")[0]
        if self.at == "site":
            actions = {site: replacer.where(site, d) for site, d in detectors.items()}
        else:
            actions = {site: replacer.seeing(d) for site, d in detectors.items()}
            actions[out] = replacer.replacing(out)
        features = {str(site): d.features.tolist() for site, d in detectors.items()}
        floors = {str(site): [round(f, 4) for f in d.floors.tolist()] for site, d in detectors.items()}
        return self.guard(concept, actions, features=features, floors=floors)


@dataclass
class Pass:
    """What one pass of the denoiser has shown so far."""

    moment: Moment
    masks: list[Tensor] = field(default_factory=list)
    """Where the concept was seen, per autoencoder."""
    without: dict[Site, Tensor] = field(default_factory=dict)
    """What a pass without it holds."""


NESTED = 4
"""Passes that are remembered at a time: guards that ask have theirs made within the one under way."""


class Replacer:
    """Remembers, within one pass of the denoiser, where the concept was seen and what a pass without it holds there."""

    def __init__(self, requery: Requery) -> None:
        self.requery = requery
        self.asking = False
        self.passes: list[Pass] = []
        self.without: dict[Site, Tensor] = {}
        """What the pass that is being asked for holds."""

    def where(self, site: Site, sees: Callable[[Tensor, Moment], Tensor]) -> Change:
        """See and replace at one site."""

        def change(x: Tensor, moment: Moment) -> Tensor | None:
            rows = self._rows(site, x, moment)
            if rows is None:
                return None
            mask = sees(x[rows], moment)
            if not mask.any():
                return None
            other = self._other(site, rows, self._of(moment))
            delta = torch.zeros_like(x)
            delta[rows] = torch.where(back(mask.unsqueeze(-1)), other - x[rows], 0)
            return delta

        return change

    def seeing(self, sees: Callable[[Tensor, Moment], Tensor]) -> Change:
        """See only."""

        def change(x: Tensor, moment: Moment) -> None:
            if not self.asking:
                self._of(moment).masks.append(square(sees(x, moment)))

        return change

    def replacing(self, site: Site) -> Change:
        """Replace, in an activation (b, c, h, w), what was seen before it in the same pass."""

        def change(x: Tensor, moment: Moment) -> Tensor | None:
            rows = self._rows(site, x, moment)
            if rows is None:
                return None
            here = self._of(moment)
            if not here.masks:
                return None
            mask = torch.stack([F.interpolate(m.float()[:, None], x.shape[-2:], mode="nearest") for m in here.masks])
            seen = mask.amax(0)[rows] > 0
            if not seen.any():
                return None
            delta = torch.zeros_like(x)
            delta[rows] = torch.where(seen, self._other(site, rows, here) - x[rows], 0)
            return delta

        return change

    def _of(self, moment: Moment) -> Pass:
        """What is known of a pass; another one that is made meanwhile, for another guard, leaves it as it is."""
        for known in self.passes:
            if known.moment is moment:
                return known
        self.passes = [*self.passes[1 - NESTED :], Pass(moment)]
        return self.passes[-1]

    def _rows(self, site: Site, x: Tensor, moment: Moment) -> list[int] | None:
        """Conditional rows of the pass; None where there are none, or where the pass is this guard's own."""
        if self.asking:
            self.without[site] = x
            return None
        return moment.conditional or None

    def _other(self, site: Site, rows: Sequence[int], here: Pass) -> Tensor:
        if site not in here.without:
            self.without, self.asking = {}, True
            try:
                self.requery(rows)
            finally:
                self.asking = False
            here.without, self.without = self.without, {}
        return here.without[site]


def square(mask: Bool[Tensor, "b ..."]) -> Bool[Tensor, "b h w"]:
    """Patches as a square map, whatever they came as. ValueError for a number of patches that is no square."""
    if mask.ndim == 3:
        return mask
    side = round(mask.shape[1] ** 0.5)
    if side * side != mask.shape[1]:
        raise ValueError(f"patch_replacement: {mask.shape[1]} patches are no square picture; use at='site'")
    return mask.view(len(mask), side, side)
