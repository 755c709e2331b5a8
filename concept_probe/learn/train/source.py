"""Where the rows of a training run come from: a store, or any iterable."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from concept_probe.registry import look_up
from concept_probe.types import Site

RowsBySite = Mapping[Site, Tensor]
"""Rows (n, d) of one or several sites; those of a transcoder's two sites belong together, row by row."""


@runtime_checkable
class ActivationStore(Protocol):
    """What training asks of captured activations; `activations.Activations` is one."""

    @property
    def sites(self) -> tuple[Site, ...]: ...
    def width(self, site: Site) -> int: ...
    def rows(self, site: Site) -> int: ...
    def batches(
        self, site: Site, size: int, *, seed: int = 0, epochs: int | None = None, start: int = 0
    ) -> Iterator[Tensor]: ...


@runtime_checkable
class JointActivationStore(ActivationStore, Protocol):
    """A store that can give the same rows at several sites."""

    def joint(
        self, sites: Sequence[Site], size: int, *, seed: int = 0, epochs: int | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, ...]]: ...


@runtime_checkable
class Selective(Protocol):
    """A store that says which of its rows a dictionary is learned from and judged on."""

    def learnable(self) -> Any: ...


Source = ActivationStore | Iterable[Tensor] | Iterable[RowsBySite]


def only_site(source: object, site: Site | None) -> Site:
    """`site`, or the one that the source has. ValueError where neither says, UnknownName where it has no such."""
    if not isinstance(source, ActivationStore):
        if site is None:
            raise ValueError("an iterator does not say where its rows come from; pass site=Site(component, path)")
        return site
    if site is None:
        if len(source.sites) != 1:
            held = ", ".join(map(str, source.sites))
            raise ValueError(f"the activations hold {len(source.sites)} sites; pass site= one of {held}")
        return source.sites[0]
    return look_up({str(s): s for s in source.sites}, str(site), "site", "the sites of the activations")


def open_source(
    source: Source, sites: Sequence[Site], batch: int, seed: int, paired: Sequence[Site] = ()
) -> tuple[RowsBySite | None, Callable[[int], Generator[RowsBySite]]]:
    """The first batch, and the batches from any number on: for each site rows (batch, d).

    `paired` are the sites whose rows belong together, row by row: those that transcoders read and write.
    A store's batches are a function of its rows, `batch` and `seed`. An iterable must give the same
    rows each time a run is started again; it can be read once. The first batch is None if there is none.
    """
    if isinstance(source, ActivationStore):
        store = source.learnable() if isinstance(source, Selective) else source

        def from_store(start: int) -> Generator[RowsBySite]:
            alone = [site for site in sites if site not in paired]
            parts: list[Iterator[Any]] = [store.batches(site, batch, seed=seed, start=start) for site in alone]
            if paired:
                if not isinstance(store, JointActivationStore):
                    raise ValueError(
                        f"{type(store).__name__} cannot give the same rows at {', '.join(map(str, paired))}"
                    )
                parts.append(store.joint(paired, batch, seed=seed, start=start))
            for rows in zip(*parts, strict=False):
                *single, last = rows
                together = dict(zip(paired, last, strict=True)) if paired else {alone[-1]: last}
                yield {**dict(zip(alone, single, strict=False)), **together}

        return next(from_store(0), None), from_store
    if not isinstance(source, Iterable):
        raise TypeError(
            f"activations are a {type(source).__name__}; give a store of them, or what gives tensors (n, d)"
        )
    blocks = _rebatch(_by_site(iter(source), sites), batch)
    first = next(blocks, None)

    def from_blocks(start: int) -> Generator[RowsBySite]:
        yield from islice(chain([] if first is None else [first], blocks), start, None)

    return first, from_blocks


def checked_rows(x: object, site: Site) -> Tensor:
    """Rows (n, d) of floating-point numbers, out of any graph.

    Raises TypeError for what is no tensor or of another kind of number, ValueError for another shape.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"sae over {site}: the source gave a {type(x).__name__}; it gives tensors of rows (n, d)")
    if not x.is_floating_point():
        raise TypeError(
            f"sae over {site}: the source gave rows of {x.dtype}; rows are floating-point numbers: if these are no tokens or "
            "masks, give x.float()"
        )
    if x.layout != torch.strided or x.is_meta:
        raise ValueError(
            f"sae over {site}: the source gave {'no values (meta)' if x.is_meta else x.layout}; give plain tensors"
        )
    if x.ndim != 2 or not x.shape[1]:
        whole = "; a single tensor of rows goes into a list: [x]" if x.ndim == 1 else ""
        raise ValueError(f"sae over {site}: the source gave a tensor of shape {tuple(x.shape)}; rows are (n, d){whole}")
    return x.detach()


def _by_site(source: Iterator[Tensor] | Iterator[RowsBySite], sites: Sequence[Site]) -> Iterator[RowsBySite]:
    widths: dict[Site, int] = {}
    for item in _picked(source, sites):
        rows = {site: checked_rows(x, site) for site, x in item.items()}
        counts = {len(x) for x in rows.values()}
        if len(counts) > 1:
            told = ", ".join(f"{len(x)} of {site}" for site, x in rows.items())
            raise ValueError(f"a batch of the iterator has {told}; rows of several sites belong together, one by one")
        for site, x in rows.items():
            d = widths.setdefault(site, x.shape[1])
            if x.shape[1] != d:
                raise ValueError(f"sae over {site}: the source gave rows of width {x.shape[1]} after rows of width {d}")
        yield rows


def _picked(source: Iterator[Tensor] | Iterator[RowsBySite], sites: Sequence[Site]) -> Iterator[RowsBySite]:
    for item in source:
        if not isinstance(item, Tensor | Mapping):
            raise TypeError(f"the iterator gave a {type(item).__name__}; it gives tensors (n, d), or {{site: (n, d)}}")
        if isinstance(item, Tensor):
            if len(sites) > 1:
                named = ", ".join(map(str, sites))
                raise ValueError(f"the iterator gives tensors, but rows of several sites are asked for: {named}")
            yield {sites[0]: item}
            continue
        for site in sites:
            if site not in item:
                held = ", ".join(map(str, item))
                raise ValueError(f"a batch of the iterator has no rows of {site}; it has {held}")
        yield {site: item[site] for site in sites}


def _rebatch(source: Iterator[RowsBySite], size: int) -> Iterator[RowsBySite]:
    """Blocks of any n, cut into blocks of exactly `size` rows; what is left at the end is dropped."""
    held: list[RowsBySite] = []
    count = 0
    for block in source:
        held.append(block)
        count += len(next(iter(block.values())))
        if count < size:
            continue
        whole = {s: torch.cat([b[s] for b in held]) if len(held) > 1 else x for s, x in block.items()}
        ready, count = count // size, count % size
        for number in range(ready):
            yield {s: x[number * size : (number + 1) * size] for s, x in whole.items()}
        held = [{s: x[ready * size :] for s, x in whole.items()}] if count else []
