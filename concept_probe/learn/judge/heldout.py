"""Held-out rows as evaluation reads them: shard after shard, as often as needed, in groups to resample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from concept_probe.learn.belongs import check_rows_belong
from concept_probe.learn.sae import Sae
from concept_probe.learn.train.seen_prompts import FIRST_TOKEN, prompt_text, seen_texts
from concept_probe.learn.train.source import Selective
from concept_probe.types import Prompt, Query, Site

_VALUES = 2**25
"""Pre-activations in memory at once: 128 MiB in float32, whatever the number of features."""
_CHUNK = 8192
GROUPS = 1024
"""Prompts are resampled one by one up to this number; more of them in so many groups, drawn at random."""


class SiteRows(Protocol):
    """Rows of one site and what each is: `activations.Block`."""

    @property
    def x(self) -> Tensor: ...
    @property
    def columns(self) -> Mapping[str, Tensor]: ...


class HeldOut(Protocol):
    """What evaluation asks of captured activations; `activations.Activations` is one."""

    @property
    def sites(self) -> tuple[Site, ...]: ...
    @property
    def prompts(self) -> Sequence[Prompt | Query]: ...
    def width(self, site: Site) -> int: ...
    def read(self, site: Site, *, columns: bool = True) -> SiteRows: ...


@runtime_checkable
class Streamed(Protocol):
    """Activations that need not be in memory whole."""

    def blocks(self, site: Site) -> Iterator[SiteRows]: ...


@dataclass(frozen=True)
class HeldOutRows:
    """Rows of one site that an autoencoder has not seen, and the prompts that they are from."""

    site: Site
    activations: HeldOut
    mean: Tensor
    """(d,) float64, of all rows."""
    group: Tensor
    """(prompts + 1,) long: the group of each prompt, the last entry that of guidance's empty prompt."""
    groups: int
    prompts: int
    """Prompts that have rows; prompts of equal text are one."""
    rows: int
    covered: Mapping[str, Tensor]
    """The values that occur in each column."""

    def chunks(self, sae: Sae) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows (m, d) and their groups (m,), on the device of `sae`, few enough for its width."""
        size = max(1, min(_CHUNK, _VALUES // sae.width))
        device = sae.W_enc.device
        for block in _blocks(self.activations, self.site):
            owner = self.group[block.columns["prompt"]]
            for x, whose in zip(block.x.split(size), owner.split(size), strict=True):
                yield x.to(device), whose.to(device)


def hold(sae: Sae, activations: HeldOut, queries: Sequence[Prompt | Query] = (), *, seed: int = 0) -> HeldOutRows:
    """Read the rows of the autoencoder's site once: mean, prompts that have rows, values of the columns.

    Raises ValueError where site or width differ (naming both), for rows of another model, where fewer than two prompts
    have rows, or where a prompt was in training; FloatingPointError for a row that is not finite.
    """
    if not hasattr(activations, "prompts"):
        raise TypeError(
            f"activations are a {type(activations).__name__}; an autoencoder is judged on a store of rows with their prompts, as "
            "`capture` makes one"
        )
    if FIRST_TOKEN in sae.made_by and isinstance(activations, Selective):
        activations = activations.learnable()  # what it never saw is no part of what it can be judged on
    _matches(sae, activations)
    check_rows_belong(sae, activations)
    _unseen(sae, (*activations.prompts, *queries))
    texts = [*map(prompt_text, activations.prompts), ""]  # rows of guidance's empty prompt have number -1: the last
    ids = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    number = torch.tensor([ids[text] for text in texts])
    total = torch.zeros(activations.width(sae.site), dtype=torch.float64)
    present = torch.zeros(len(ids), dtype=torch.bool)
    values: dict[str, Tensor] = {}
    count = 0
    for block in _blocks(activations, sae.site):
        finite = torch.isfinite(block.x).all(1)
        if not bool(finite.all()):
            row = count + int((~finite).nonzero()[0])
            raise FloatingPointError(f"activations of {sae.site}: row {row} holds NaN or infinity")
        for part in block.x.split(_CHUNK):
            total += part.double().sum(0).cpu()
        present[number[block.columns["prompt"].cpu()]] = True
        for name, column in block.columns.items():
            here = column.unique().cpu()
            values[name] = torch.cat([values[name], here]).unique() if name in values else here
        count += len(block.x)
    n = int(present.sum())
    if n < 2:
        raise ValueError(f"activations of {sae.site} hold rows of {n} prompt; an interval needs at least two")
    return HeldOutRows(
        sae.site, activations, total / count, _grouped(present, seed)[number], min(n, GROUPS), n, count, values
    )


def _grouped(present: Tensor, seed: int) -> Tensor:
    """The group of each distinct prompt: its own number among those present, or one of GROUPS at random."""
    n = int(present.sum())
    place = torch.zeros(len(present), dtype=torch.long)
    which = torch.arange(n)
    if n > GROUPS:
        which = torch.randperm(n, generator=torch.Generator().manual_seed(seed)) % GROUPS
    place[present] = which
    return place


def _blocks(activations: HeldOut, site: Site) -> Iterator[SiteRows]:
    if isinstance(activations, Streamed):
        yield from activations.blocks(site)
    else:
        yield activations.read(site)


def _matches(sae: Sae, activations: HeldOut) -> None:
    if sae.site not in activations.sites:
        held = ", ".join(map(str, activations.sites))
        raise ValueError(f"the autoencoder is for site {sae.site}; the activations hold {held}")
    if (width := activations.width(sae.site)) != sae.d:
        raise ValueError(f"the autoencoder over {sae.site} has width {sae.d}, the activations there have width {width}")


def _unseen(sae: Sae, prompts: Sequence[Prompt | Query]) -> None:
    if overlap := seen_texts(sae.made_by.get("prompts"), prompts):
        named = ", ".join(map(repr, overlap[:3]))
        raise ValueError(
            f"{len(overlap)} prompts were used to train the autoencoder over {sae.site} and cannot judge it: "
            f"{named}; use prompts of another split"
        )
