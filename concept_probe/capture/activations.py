"""Captured rows on disk: a folder of safetensors shards and a manifest that says what every row is."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from concept_probe.capture import shard
from concept_probe.capture.shuffle import shuffled
from concept_probe.registry import UnknownName
from concept_probe.types import Prompt, Query, Site

COLUMNS = ("prompt", "token", "kind", "step", "branch", "patch")
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Block:
    """Rows of one site, and what each row is."""

    x: Tensor
    """(n, d) in the stored dtype."""
    columns: Mapping[str, Tensor]
    """COLUMNS to long (n,): `prompt` into the prompts asked for, `token` and `patch` positions, `kind` into
    TOKEN_KINDS, denoising `step`, `branch` into BRANCHES; -1 where a column has no meaning."""


class Activations:
    """A store of captured rows, opened for reading.

    >>> acts = Activations.open(folder)
    >>> block = acts.read(acts.sites[0])
    >>> for x in acts.batches(acts.sites[0], 1024, epochs=1): ...
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], owner: object = None) -> None:
        self.folder = folder
        self._manifest = manifest
        self._owner = owner  # a temporary folder lives as long as its store
        self._maps: dict[str, dict[str, Tensor]] = {}
        header = manifest["header"]
        self.subject: str = header["subject"]
        self.weight_hash: str = header["weight_hash"]
        self.sites: tuple[Site, ...] = tuple(Site.parse(address) for address in header["sites"])
        self.dtype: torch.dtype = getattr(torch, header["dtype"])
        self.queries: tuple[Query, ...] = tuple(
            Query(Prompt(text, subject, label), seed) for text, subject, label, seed in header["prompts"]
        )
        self.complete: bool = manifest["complete"]

    @classmethod
    def open(cls, folder: str | Path) -> Activations:
        """Open what `capture` wrote to `folder`; shards are checked against their hashes when first read.

        Raises FileNotFoundError if there is no manifest; warns if the capture was cut off.
        """
        path = Path(folder) / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no {MANIFEST}; give the folder that capture wrote to")
        acts = cls(Path(folder), json.loads(path.read_text(encoding="utf-8")))
        if not acts.complete:
            done = max((s["done"] for s in acts._shards), default=0)
            warnings.warn(
                f"the capture in {folder} was cut off after {done} of {len(acts.queries)} prompts; the same call of "
                "capture goes on from there",
                stacklevel=2,
            )
        return acts

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return tuple(q.prompt for q in self.queries)

    @property
    def _shards(self) -> list[dict[str, Any]]:
        return self._manifest["shards"]

    def _index(self, site: Site) -> int:
        if site not in self.sites:
            raise UnknownName("site", str(site), map(str, self.sites), f"captured in {self.folder}")
        return self.sites.index(site)

    def width(self, site: Site) -> int:
        """Numbers per row, d."""
        self._index(site)
        return self._manifest["widths"][str(site)]

    def rows(self, site: Site) -> int:
        """Rows at `site`, over all shards."""
        self._index(site)
        return sum(s["rows"].get(str(site), 0) for s in self._shards)

    def damaged(self) -> dict[str, str]:
        """File name to what is wrong with it, for every shard that fails its check; reads all of them."""
        out = {}
        for record in self._shards:
            try:
                shard.check(self.folder / record["file"], record)
            except shard.DamagedShard as problem:
                out[record["file"]] = str(problem)
        return out

    def good(self) -> Activations:
        """The same store without its damaged shards."""
        bad = self.damaged()
        kept = [s for s in self._shards if s["file"] not in bad]
        return Activations(self.folder, {**self._manifest, "shards": kept}, self._owner)

    def _open(self, record: Mapping[str, Any]) -> dict[str, Tensor]:
        name = record["file"]
        if name not in self._maps:
            shard.check(self.folder / name, record)
            self._maps[name] = shard.mapped(self.folder / name)
        return self._maps[name]

    def read(self, site: Site, *, columns: bool = True) -> Block:
        """All rows of one site, in the order in which they were captured, in memory.

        Raises DamagedShard naming the file and the failed check.
        """
        at, address = self._index(site), str(site)
        wanted = COLUMNS if columns else ()
        parts = [self._open(s) for s in self._shards if s["rows"].get(address)]
        if not parts:
            empty = torch.zeros(0, self._manifest["widths"].get(address, 0), dtype=self.dtype)
            return Block(empty, {c: torch.zeros(0, dtype=torch.long) for c in wanted})
        x = torch.cat([p[f"{at}.x"] for p in parts])
        return Block(x, {c: torch.cat([p[f"{at}.{c}"] for p in parts]).long() for c in wanted})

    def batches(
        self, site: Site, size: int, *, seed: int = 0, epochs: int | None = None, start: int = 0
    ) -> Iterator[Tensor]:
        """Batches (size, d) of rows drawn without return across all shards, at constant memory.

        Each epoch has its own order, given by `seed`; what does not fill a batch waits for the next epoch's draw.
        `epochs` None goes on for ever; `start` skips that many batches at no cost, so a run resumes where it was.
        Raises ValueError at once if the site has fewer rows than one batch.
        """
        address, total = str(site), self.rows(site)
        if not 0 < size <= total:
            raise ValueError(f"a batch of {size} rows was asked for at {address}, which has {total}")
        return self._batches(site, size, seed, epochs, start)

    def _batches(self, site: Site, size: int, seed: int, epochs: int | None, start: int) -> Iterator[Tensor]:
        at, address = self._index(site), str(site)
        shards = [s for s in self._shards if s["rows"].get(address)]
        ends = torch.tensor([s["rows"][address] for s in shards]).cumsum(0)
        total, width = int(ends[-1]), self.width(site)
        per_epoch = total // size
        number = start
        while epochs is None or number < epochs * per_epoch:
            epoch, place = divmod(number, per_epoch)
            positions = torch.arange(place * size, (place + 1) * size)
            rows = shuffled(positions, total, seed * 1_000_003 + epoch)
            out = torch.empty(size, width, dtype=self.dtype)
            owners = torch.searchsorted(ends, rows, right=True)
            for i in owners.unique().tolist():
                here = owners == i
                first = int(ends[i - 1]) if i else 0
                out[here] = self._open(shards[i])[f"{at}.x"][rows[here] - first]
            yield out
            number += 1
