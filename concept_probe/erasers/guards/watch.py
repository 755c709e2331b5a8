"""Watch the picture as it comes about, and draw the anchor's where the denoiser itself knows the concept in it."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from concept_probe.activations.tap import tap
from concept_probe.arguments import Count, Share
from concept_probe.erasers.eraser import TINY_SAMPLING, Eraser
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.evaluation.auroc import auroc
from concept_probe.evaluation.thinning import most_varied
from concept_probe.families import DiffusionSubject
from concept_probe.families.diffusion.trajectory import Trajectory
from concept_probe.find.directions.probes import LinearProbe, fit_probe
from concept_probe.types import (
    FORGET_KINDS,
    OTHER_KINDS,
    Concept,
    Kind,
    Moment,
    Prompt,
    Query,
    Sampling,
    Site,
    Split,
    Subspace,
)

PerPass = Mapping[int, Tensor]
"""By pass of the denoiser, what was seen of n pictures: (n, 2d)."""
_SEEDS = 1_000_003


def over_places(x: Float[Tensor, "n ..."]) -> Float[Tensor, "n e"]:
    """Mean and largest entry over the places of an activation: (n, d, h, w) or (n, t, d) to (n, 2d), float32."""
    places = x.detach().float()
    places = places.flatten(2).mT if places.ndim == 4 else places
    return torch.cat([places.mean(1), places.amax(1)], 1)


def asked_rows(moment: Moment) -> list[int]:
    """Rows of a pass that are pictures under their own prompts, in their order; none where the pass is another's."""
    if moment.nested or moment.step is None:
        return []
    return moment.conditional


@dataclass(frozen=True)
class Lookout:
    """A probe for each pass of the denoiser at one site, on one scale: 0 is the mean of other pictures, 1 their spread."""

    timesteps: Tensor
    """(s,)"""
    probes: tuple[LinearProbe, ...]
    means: Tensor
    """(s,): logits of other pictures"""
    spreads: Tensor
    """(s,)"""
    least: float = 0.0
    """How far a picture has to be above other pictures, in one pass, to be caught."""

    def __call__(self, x: Float[Tensor, "n e"], timestep: float) -> Float[Tensor, "n"]:
        """How far n pictures are above others in the pass at the nearest timestep."""
        at = int((self.timesteps - timestep).abs().argmin())
        logits = self.probes[at](x.double().to(self.probes[at].weight.device))
        return ((logits - self.means[at]) / self.spreads[at]).to(x.device)


@dataclass(frozen=True)
class Watch(Eraser[DiffusionSubject, Intervention]):
    """A probe inside the denoiser sees the concept in a picture under way; then the anchor's picture is drawn in its place.

    What led there does not matter: a name, other words, embeddings, latents, or weights that learned it again.

    >>> guard = Watch(spared=0.995)(subject, concept)
    """

    name = "watch"
    makes = "guard"
    asks = True
    on = "pictures"
    aims = "latents"
    origin = "ours"
    role: str = "block_out"
    """Role of the sites among which the one is chosen whose probes tell select pictures best."""
    instead: str | None = None
    """What is drawn instead; None: the concept's anchor prompts (fit split) in turn, or the empty prompt where it has none."""
    sources: tuple[Kind, ...] = FORGET_KINDS
    """Lists of the concept's prompts that the probes learn to tell."""
    others: tuple[Kind, ...] = OTHER_KINDS
    """Lists of prompts that they are told from."""
    limit: Count = 24
    """Prompts of each list that are drawn, one picture each, of the fit split to learn from; half as many of the select split."""
    spared: Share = 0.99
    """Share of other pictures (select split) that must not be caught in any pass: how sure a probe has to be follows from it."""
    start: Share = 0.1
    """Share of the passes, from noise on, in which nothing is looked at: they show no object yet."""
    penalty: float = 0.1
    """Penalty on the weights of each probe; see `find.fit_probe`."""
    sampling: Sampling = Sampling()
    """How the pictures of the fit, and those that are drawn instead, are made."""
    strength: float = 1.0
    """Factor on the change: between 0 and 1, both pictures are mixed."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(limit=2, spared=0.0, sampling=TINY_SAMPLING)

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """ValueError where the concept has no prompts to draw, or nothing else has, in the fit or the select split."""
        parts = concept.parts or (concept,)
        seen = {split: self._drawn(subject, concept, parts, split) for split in ("fit", "select")}
        site, lookouts, told = self._best(seen["fit"], seen["select"], subject)
        watcher = Watcher(self, subject, lookouts, anchors_of(concept, self.instead))
        measured = {
            "site": str(site),
            **{name: [round(of[name], 4) for of in told] for name in ("auroc", "caught", "least", "margin")},
            "pictures": sum(_pictures(of[site]) for of in seen.values()),
        }
        return self.guard(concept, {site: watcher.look}, watcher.between, **measured)

    def _drawn(
        self, subject: DiffusionSubject, concept: Concept, parts: Sequence[Concept], split: Split
    ) -> dict[Site, dict[tuple[int, int], Tensor]]:
        """By site, and by (side, timestep): pooled activations (n, 2d). Sides are the parts in order, and -1 for others."""
        most = self.limit if split == "fit" else -(-self.limit // 2)
        lists = {i: [part.prompts(kind, split) for kind in self.sources] for i, part in enumerate(parts)}
        lists[-1] = [concept.prompts(kind, split) for kind in self.others]
        out: dict[Site, dict[tuple[int, int], Tensor]] = {site: {} for site in subject.sites(self.role)}
        for side, of in lists.items():
            prompts = [p for each in of for p in most_varied(each, most)]
            if not prompts:
                whose = "other things" if side < 0 else repr(parts[side].name)
                raise ValueError(
                    f"watch: no prompt of {whose} ({split} split) can be drawn, and its probes need some; give them"
                )
            first = {"fit": 0, "select": 10_000}[split] + 1000 * (side + 2)
            queries = [Query(p, first + i) for i, p in enumerate(prompts)]
            for site, looks in pictures_seen(subject, list(out), queries, self.sampling).items():
                out[site] |= {(side, step): x for step, x in looks.items()}
        return out

    def _best(
        self, fit: Mapping[Site, Mapping[tuple[int, int], Tensor]], held: Mapping[Site, Mapping[tuple[int, int], Tensor]],
        subject: DiffusionSubject,
    ) -> tuple[Site, list[Lookout], list[dict[str, float]]]:  # fmt: skip
        """The site at which most of the held-out pictures of the concept are caught, are told apart best, and stand clearest
        of the threshold."""
        times = subject.trajectory([0], self.sampling.steps).timesteps.cpu()
        first = min(int(self.start * len(times)), len(times) - 1)
        met = {step for looks in fit.values() for _, step in looks}
        if unmet := [step for step in range(first, len(times)) if fit and step not in met]:
            raise ValueError(
                f"watch: its pictures were to be drawn in {len(times)} passes, and something on {subject.name!r} left out pass "
                f"{unmet[0]}; make the guard where nothing else acts on how pictures are drawn"
            )
        best: tuple[tuple[float, ...], Site, list[Lookout], list[dict[str, float]]] | None = None
        for site in fit:
            lookouts, told = [], []
            for side in sorted({side for side, _ in fit[site]} - {-1}):
                lookout, found = self._probes_of(fit[site], held[site], side, times, first)
                lookouts.append(lookout)
                told.append(found)
            score = tuple(min(of[name] for of in told) for name in ("caught", "auroc", "margin"))
            if best is None or score > best[0]:
                best = (score, site, lookouts, told)
        if best is None:
            raise ValueError(
                f"watch: {subject.name!r} has no site of role {self.role!r}; roles are {', '.join(subject.roles())}"
            )
        return best[1:]

    def _probes_of(
        self, fit: Mapping[tuple[int, int], Tensor], held: Mapping[tuple[int, int], Tensor], side: int, times: Tensor, first: int
    ) -> tuple[Lookout, dict[str, float]]:  # fmt: skip
        """Probes of one concept, and what they do on held-out pictures."""
        probes, logits = [], []
        for step in range(first, len(times)):
            own, others = fit[side, step], fit[-1, step]
            labels = torch.arange(len(own) + len(others), device=own.device) < len(own)
            probes.append(fit_probe(torch.cat([own, others]), labels, penalty=self.penalty))
            logits.append([probes[-1](held[of, step].double()) for of in (side, -1)])
        means = torch.stack([others.mean() for _, others in logits])
        spreads = torch.stack([others.std(correction=0).clamp_min(1e-6) for _, others in logits])
        above = [
            torch.stack([(one[i] - m) / s for one, m, s in zip(logits, means, spreads, strict=True)]).amax(0)
            for i in (0, 1)
        ]
        least = float(above[1].quantile(self.spared))
        labels = torch.arange(sum(map(len, above)), device=above[0].device) < len(above[0])
        found = {
            "auroc": float(auroc(torch.cat(above), labels)), "caught": float((above[0] > least).double().mean()), "least": least,
            "margin": float(above[0].min()) - least,
        }  # fmt: skip
        return Lookout(times[first:], tuple(probes), means, spreads, least), found


def pictures_seen(
    subject: DiffusionSubject, sites: Sequence[Site], queries: Sequence[Query], sampling: Sampling
) -> dict[Site, PerPass]:
    """What each pass of the denoiser holds at `sites` of the pictures of `queries`, pooled."""
    seen: dict[Site, dict[int, list[Tensor]]] = {site: {} for site in sites}

    def looking(site: Site) -> Change:
        def look(x: Tensor, moment: Moment) -> None:
            rows = asked_rows(moment)
            if rows and moment.step is not None:
                seen[site].setdefault(moment.step, []).append(over_places(x[rows]))

        return look

    with torch.no_grad(), tap(subject, {site: looking(site) for site in sites}):
        subject.sample(queries, sampling)
    return {site: {step: torch.cat(parts) for step, parts in of.items()} for site, of in seen.items()}


def _pictures(seen: Mapping[tuple[int, int], Tensor]) -> int:
    """How many pictures were looked at: those of the last pass."""
    last = max(step for _, step in seen)
    return sum(len(x) for (_, step), x in seen.items() if step == last)


def anchors_of(concept: Concept, instead: str | None) -> tuple[Prompt, ...]:
    """What is drawn instead: a text, or the concept's anchors, or the empty prompt."""
    return (Prompt(instead),) if instead is not None else concept.anchor.fit or (Prompt(""),)


@dataclass
class Watcher:
    """What was seen of the batch under way."""

    options: Watch
    subject: DiffusionSubject
    lookouts: Sequence[Lookout]
    anchors: Sequence[Prompt]
    seen: Bool[Tensor, "n"] | None = None
    """In which pictures a probe sees a concept in the pass under way; None where nothing was looked at."""
    caught: Bool[Tensor, "n"] | None = None
    """In which one did, in any pass so far of the trajectory `of`."""
    of: Callable[[], Trajectory | None] = lambda: None
    warned: bool = False

    def look(self, x: Tensor, moment: Moment) -> None:
        """A tap: notes the pictures in which a probe sees a concept."""
        rows = asked_rows(moment)
        if not rows or moment.timestep is None:
            return
        self.seen = None
        if moment.timestep > float(self.lookouts[0].timesteps.max()) + 1e-6:
            return
        read = over_places(x[rows])
        self.seen = torch.stack([lookout(read, moment.timestep) > lookout.least for lookout in self.lookouts]).any(0)

    def between(self, trajectory: Trajectory, step: int) -> Tensor | None:
        """After the last step: from the caught pictures to those of the anchor."""
        if self.of() is not trajectory:  # wherever the one before ended, it says nothing of this one
            self.of, self.caught = weakref.ref(trajectory), None
        seen, self.seen = self.seen, None
        if seen is not None:
            self.caught = seen if self.caught is None else seen | self.caught
        if step + 1 < len(trajectory.timesteps):
            return None
        caught, self.caught = self.caught, None
        if caught is None:
            self._warn(trajectory)
            return None
        rows = caught.nonzero().flatten().tolist()
        if not rows:
            return None
        # Noise of their own: latents that were searched for may draw the concept under any prompt.
        seeds = [(trajectory.sources[i].initial_seed() + _SEEDS) % 2**31 for i in rows]
        queries = [Query(self.anchors[seed % len(self.anchors)], seed) for seed in seeds]
        delta = torch.zeros_like(trajectory.latents)
        delta[rows] = self.subject.sample_aside(queries, self.options.sampling).to(delta) - trajectory.latents[rows]
        return delta

    def _warn(self, trajectory: Trajectory) -> None:
        if self.warned:
            return
        self.warned = True
        passes = ", ".join(f"{t:g}" for t in trajectory.timesteps[trajectory.first :].tolist())
        warnings.warn(
            f"watch is on and changes nothing: it looks at passes from timestep {float(self.lookouts[0].timesteps.max()):g} on, "
            f"and these pictures are made in passes at {passes}; sample with more steps, or make it with the `sampling` that "
            "pictures are made with and `start` 0",
            stacklevel=2,
        )
