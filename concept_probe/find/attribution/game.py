"""The game: what a subject does on each query with only some of its players there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.content import digest_of
from concept_probe.families.identity import how_it_reads
from concept_probe.find.attribution.behaviours import Behaviour, Measuring, Setting
from concept_probe.find.attribution.elsewhere import OtherRows, look_elsewhere
from concept_probe.find.attribution.players import Player, readers_of
from concept_probe.find.attribution.summaries import Design, Summary
from concept_probe.find.attribution.values import KeptValues
from concept_probe.find.removals.acting import rows_of, sites_of, without
from concept_probe.find.removals.readers import CoefficientReader, SpotReader
from concept_probe.find.removals.removal import Removal
from concept_probe.types import KINDS, Moment, Query

if TYPE_CHECKING:
    from concept_probe.families import Subject

VALUES_FORMAT = "concept_probe.attribution.values/1"
"""Part of every game's digest: a version that measures otherwise takes another."""


@dataclass(frozen=True, eq=False)
class RemovalGame:
    """v(S): the behaviour on each of n queries with the players outside S taken out."""

    setting: Setting
    players: tuple[Player, ...]
    removal: Removal
    behaviour: Behaviour
    kept: KeptValues
    others: int = 32
    """Most prompts that a removal reads of what stands elsewhere."""
    seed: int = 0
    _made: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        _check_behaviour(self.setting.subject, self.behaviour)
        _check_places(self.setting.subject, self.readers, self.players, self.behaviour)
        sites_of(self.readers, self.removal)

    @property
    def size(self) -> int:
        return len(self.players)

    @property
    def answers(self) -> int:
        """How many the subject gave so far, readings of a prompt among them."""
        return self._made[0]

    @cached_property
    def readers(self) -> tuple[CoefficientReader, ...]:
        return readers_of(self.setting.subject, self.players)

    @cached_property
    def elsewhere(self) -> OtherRows:
        s = self.setting
        return look_elsewhere(
            s.subject, s.concept, self.readers, self.removal, s.sampling, most=self.others, seed=self.seed
        )

    @cached_property
    def measure(self) -> Measuring:
        """Measured once with every player there, and with a look that each is met: one that never is would be worth 0 for
        no reason of its own."""
        measure, everyone = self.behaviour.prepared(self.setting), range(len(self.setting.queries))
        met: set[int] = set()
        with torch.no_grad(), tap(self.setting.subject, _looks(self.readers, met)):
            whole = measure(everyone).detach().double().cpu()
        unmet = next((p.name for i, p in enumerate(self.players) if i not in met), None)
        if unmet is not None:
            raise ValueError(
                f"player {unmet!r} was met in no pass of behaviour {self.behaviour.name!r} on {len(everyone)} queries, so taking it out "
                "would change nothing; check its site, its kinds of token and its steps (see `Spot`)"
            )
        self._keep(torch.ones(self.size, dtype=torch.float64), whole)
        return measure

    @cached_property
    def digest(self) -> str:
        """What the game is: equal digests, equal values."""
        s = self.setting
        judge = (s.judge.name, s.judge.version) if s.judge is not None else None
        about = (s.concept.name, [s.concept.prompts(kind, "fit") for kind in KINDS])
        asked = (s.queries, s.sampling, judge, about, self.others, self.seed)
        parts = [player.parts for player in self.players]
        model = (s.subject.weight_hash(), how_it_reads(s.subject), s.subject.conventions(), s.subject.state.on())
        return digest_of(VALUES_FORMAT, model, parts, self.removal, self.behaviour, asked)

    def without(self, keep: Tensor):
        """The subject with a share `1 - keep` (m,) of each player taken out."""
        if not keep.requires_grad and bool((keep == 1).all()):
            return nullcontext()
        subject = self.setting.subject
        return without(subject, self.readers, self.removal, keep, self.elsewhere.at, everywhere=False)

    def values(self, keep: Tensor) -> Tensor:
        """(n,) float64 of a coalition (m,). Raises ValueError for a value that is no number."""
        found = self.kept.get(self.digest, keep)
        if found is not None:
            return found
        measure = self.measure
        if bool((keep == 1).all()):
            return self.values(keep)
        with torch.no_grad(), self.without(keep):
            out = measure(range(len(self.setting.queries))).detach().double().cpu()
        self._keep(keep, out)
        return out

    def _keep(self, keep: Tensor, values: Tensor) -> None:
        self._made[0] += len(values)
        self._check(values, keep)
        self.kept.put(self.digest, keep, values)

    def gradients(self, keep: Tensor) -> Tensor:
        """(m, n): slopes of the value of each query in how much of each player stays, at `keep` (m,)."""
        found = self.kept.get(self.digest, keep, slopes=True)
        if found is not None:
            return found.reshape(self.size, -1)
        measure, out = self.measure, []
        for i in range(len(self.setting.queries)):
            share = keep.clone().requires_grad_()
            with torch.enable_grad(), self.without(share):
                value = measure([i])
            slope = torch.autograd.grad(value.sum(), share, allow_unused=True)[0] if value.requires_grad else None
            self._made[0] += 1
            out.append(torch.zeros_like(keep) if slope is None else slope.detach())
            self._check(torch.cat([value.detach().double().cpu(), out[-1]]), keep)
        slopes = torch.stack(out, 1)
        self.kept.put(self.digest, keep, slopes.flatten(), slopes=True)
        return slopes

    def _check(self, values: Tensor, keep: Tensor) -> None:
        if bool(values.isfinite().all()):
            return
        out = [p.name for p, k in zip(self.players, keep.tolist(), strict=True) if k < 1]
        if not out:
            raise ValueError(
                f"behaviour {self.behaviour.name!r} gave a value that is no number with every part in its place, so nothing can be "
                "shared; see whether the model's weights and answers are finite, or take another behaviour"
            )
        shown = ", ".join(out[:4]) + (", ..." if len(out) > 4 else "")
        raise ValueError(
            f"behaviour {self.behaviour.name!r} gave a value that is no number with {shown} taken out by {self.removal.name!r}, so "
            "nothing can be shared; use removal='mean', which stays near what the model knows, or another behaviour"
        )

    def play(self, design: Design, of: str = "values", done: Callable[[int], None] = lambda n: None) -> Tensor:
        """Values (c, n), or gradients (c, m, n), of all coalitions of a design; `done` counts them."""
        out = []
        for keep in design.masks:
            out.append(self.values(keep) if of == "values" else self.gradients(keep))
            done(1)
        return torch.stack(out)

    def known(self, masks: Tensor, of: str = "values") -> int:
        """How many of the coalitions are measured already."""
        return sum(self.kept.get(self.digest, keep, slopes=of == "gradients") is not None for keep in masks)


def check_summary(summary: Summary, behaviour: Behaviour, removal: Removal) -> None:
    """Raise ValueError where slopes are asked for of what has none."""
    if summary.of != "gradients":
        return
    if not behaviour.smooth:
        raise ValueError(
            f"summary {summary.name!r} needs a behaviour with a slope, and {behaviour.name!r} has none; use behaviour='readout', "
            "'answers', 'odds' or 'denoising', or summary='shapley'"
        )
    if removal.draws:
        raise ValueError(
            f"summary {summary.name!r} goes along one line, and removal {removal.name!r} draws where it ends; use removal='mean' or "
            "'zero'"
        )


def coalition_queries(queries: Sequence[Query]) -> tuple[Query, ...]:
    """The queries, none twice. Raises ValueError for none."""
    if not queries:
        raise ValueError("there is no query to measure a behaviour on; give the concept prompts in that split")
    return tuple(dict.fromkeys(queries))


def _check_behaviour(subject: Subject, behaviour: Behaviour) -> None:
    if behaviour.on not in ("both", subject.answers):
        others = "'detection', 'readout' or 'divergence'"
        raise ValueError(
            f"behaviour {behaviour.name!r} is of models that answer with {behaviour.on}, and {subject.name!r} answers with "
            f"{subject.answers}; use {others}"
        )


def _check_places(
    subject: Subject, readers: Sequence[CoefficientReader], players: Sequence[Player], behaviour: Behaviour
) -> None:  # fmt: skip
    for reader in readers:
        text = subject.is_text(reader.site)
        if behaviour.reads_only and not text:
            raise ValueError(
                f"behaviour {behaviour.name!r} ends before the denoiser, and a player is at {reader.site} inside it; use behaviour="
                "'detection', 'denoising' or 'divergence'"
            )
        steps = [one for one in getattr(reader, "sets", ()) if one.steps is not None]
        if steps and text and subject.answers == "pictures":
            name = players[steps[0].owner].name
            raise ValueError(
                f"player {name!r}: {reader.site} reads the text before the first step, so it has no steps; leave them out"
            )


def _looks(readers: Sequence[CoefficientReader], met: set[int]):
    """Taps that change nothing and collect the players that are met."""

    def at(reader: CoefficientReader):
        def fn(x: Tensor, moment: Moment) -> None:
            if "cond" not in moment.branches:
                return
            if not isinstance(reader, SpotReader):
                met.update(reader.owners)  # pyright: ignore[reportAttributeAccessIssue]
                return
            rows = torch.tensor([branch == "cond" for branch in moment.branches])
            for one in reader.sets:
                found = reader.rows(one, moment, rows_of(x))
                if found is not None and bool(found.cpu()[rows].any()):
                    met.add(one.owner)

        return fn

    return {reader.site: at(reader) for reader in readers}
