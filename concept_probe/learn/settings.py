"""What a training run is told: its settings, and where its rows come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from concept_probe.registry import look_up
from concept_probe.types import Site

NEVER_FIRED = 10_000_000
"""Rows without firing after which arXiv 2406.04093 calls a feature dead (appendix A.2)."""


@runtime_checkable
class Store(Protocol):
    """What training asks of captured activations; `capture.Activations` is one."""

    @property
    def sites(self) -> tuple[Site, ...]: ...
    def width(self, site: Site) -> int: ...
    def rows(self, site: Site) -> int: ...
    def batches(
        self, site: Site, size: int, *, seed: int = 0, epochs: int | None = None, start: int = 0
    ) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class Settings:
    """Everything that decides the weights, besides the rows."""

    site: str
    k: int
    expansion: int
    """Features per dimension of the site."""
    samples: int
    """Rows of the whole run, in whole batches."""
    batch: int
    rate: float
    """Adam's learning rate between warm-up and decay."""
    seed: int
    dead_after: int
    """Rows without firing after which a feature counts as dead."""
    auxk: int
    """Dead features that reconstruct the error of one row; 0 turns AuxK off."""

    @property
    def steps(self) -> int:
        return self.samples // self.batch

    def rate_at(self, step: int) -> float:
        """Linear warm-up over a twentieth of the run (at most 1,000 steps), linear decay to 0 over the last fifth."""
        warm = (step + 1) / max(1, min(1000, self.steps // 20))
        left = (self.steps - step) / max(1, self.steps // 5)
        return self.rate * min(1.0, warm, left)


@dataclass(frozen=True)
class Step:
    """What a callback is told after each step."""

    step: int
    fvu: float
    """Fraction of variance unexplained on this step's batch, before its update."""
    auxk: float
    dead: int
    """Features that count as dead after this step."""


def settle(
    site: Site,
    d: int,
    k: int,
    expansion: int,
    samples: int,
    batch: int,
    rate: float | None,
    seed: int,
    dead_after: int | None,
    auxk: int | None,
) -> Settings:
    """Fill in what was left open (None). ValueError for values with which the run could not do what it is for."""
    features = d * expansion
    for name, value in (("k", k), ("expansion", expansion), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if k > features:
        raise ValueError(f"k is {k}, more than the {features} features of width {d} x expansion {expansion}")
    if samples < batch:
        raise ValueError(f"samples is {samples}, less than one batch of {batch}; raise samples or lower batch")
    rate = 2e-4 / math.sqrt(features / 2**14) if rate is None else rate
    auxk = round(2 ** round(math.log2(max(1, d / 2)))) if auxk is None else auxk
    dead_after = min(NEVER_FIRED, max(1, samples // 10)) if dead_after is None else dead_after
    if auxk and dead_after >= samples:
        raise ValueError(
            f"dead_after is {dead_after} rows but the run has only {samples}: no feature could be found dead in time; "
            f"lower dead_after, or pass auxk=0 to train without reviving"
        )
    return Settings(str(site), k, expansion, samples // batch * batch, batch, rate, seed, dead_after, auxk)


def open_source(
    source: Store | Iterable[Tensor], site: Site | None, batch: int, seed: int
) -> tuple[Site, Tensor | None, Callable[[int], Iterator[Tensor]]]:
    """The site that rows come from, the first batch (batch, d), and the batches from any number on.

    A store's batches are a function of its rows, `batch` and `seed`. An iterable must give the same
    rows each time a run is started again; it can be read once. The first batch is None if there is none.
    """
    if isinstance(source, Store):
        if site is None:
            if len(source.sites) != 1:
                held = ", ".join(map(str, source.sites))
                raise ValueError(f"the activations hold {len(source.sites)} sites; pass site= one of {held}")
            site = source.sites[0]
        where = look_up({str(s): s for s in source.sites}, str(site), "site", "the sites of the activations")
        return where, next(source.batches(where, batch, seed=seed), None), partial(_from, source, where, batch, seed)
    if site is None:
        raise ValueError("an iterator does not say where its rows come from; pass site=Site(component, path)")
    blocks = _rebatch(iter(source), batch)
    first = next(blocks, None)
    return site, first, lambda start: islice(chain([] if first is None else [first], blocks), start, None)


def _from(source: Store, site: Site, batch: int, seed: int, start: int) -> Iterator[Tensor]:
    return source.batches(site, batch, seed=seed, start=start)


def _rebatch(source: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """Blocks (n, d) of any n, cut into blocks of exactly `size` rows; what is left at the end is dropped."""
    held: list[Tensor] = []
    count = 0
    for block in source:
        held.append(block)
        count += block.shape[0]
        if count < size:
            continue
        whole = torch.cat(held) if len(held) > 1 else block
        ready, count = count // size, count % size
        yield from whole[: ready * size].split(size)
        held = [whole[ready * size :]] if count else []
