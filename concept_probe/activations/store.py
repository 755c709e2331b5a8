"""Captured rows on disk: a folder of safetensors shards and a manifest that says what every row is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from concept_probe.activations import shard
from concept_probe.activations.columns import RowColumns, columns_in, read_column
from concept_probe.activations.manifest import read_manifest
from concept_probe.activations.positions import leaves_first
from concept_probe.activations.sampler import ChosenRows, StoredRows, draw_batches
from concept_probe.registry import UnknownName
from concept_probe.types import Prompt, Query, Site

WINDOW = 65536
"""Rows mixed at a time unless another number is given: 100 MB at a width of 768 in float16."""
FOR_TEXTS = ("form", "answers", "distractors")
"""Fields of a prompt that are written down only where they say something, after the four that always are."""


def row_of(query: Query) -> list[Any]:
    """A query as a manifest holds it; `query_from` reads it."""
    prompt, plain = query.prompt, Prompt("")
    more = {name: value for name in FOR_TEXTS if (value := getattr(prompt, name)) != getattr(plain, name)}
    return [prompt.text, prompt.subject, prompt.label, query.seed, *([more] if more else [])]


def query_from(row: list[Any]) -> Query:
    """The query that `row_of` wrote."""
    text, subject, label, seed, *rest = row
    more: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in (rest[0] if rest else {}).items()}
    return Query(Prompt(text, subject, label, **more), seed)


@dataclass(frozen=True)
class Block:
    """Rows of one site, and what each row is."""

    x: Tensor
    """(n, d) in the stored dtype."""
    columns: Mapping[str, Tensor]
    """Long (n,): `prompt` into the prompts asked for, `token` and `patch` positions, `kind` into TOKEN_KINDS, `step`, the
    pass of the denoiser, `branch` into BRANCHES. Float32 (n,): `sigma`, the noise in what the denoiser saw in that pass
    (`Moment.sigma`). -1 where a column has no meaning. UnknownName where a store of before `sigma` is asked for it."""


class Activations:
    """A store of captured rows, opened for reading.

    >>> acts = Activations.open(folder)
    >>> block = acts.read(acts.sites[0])
    >>> for x in acts.batches(acts.sites[0], 1024, epochs=1): ...
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], owner: object = None, *, first: bool = True) -> None:
        self.folder = folder
        self._first = first
        self._manifest = manifest
        self._owner = owner  # a temporary folder lives as long as its store
        self._maps: dict[str, shard.ShardContents] = {}
        header = manifest["header"]
        self.subject: str = header["subject"]
        self.weight_hash: str = header["weight_hash"]
        self.sites: tuple[Site, ...] = tuple(Site.parse(address) for address in header["sites"])
        self.dtype: torch.dtype = getattr(torch, header["dtype"])
        self.queries: tuple[Query, ...] = tuple(query_from(row) for row in header["prompts"])
        self.columns: tuple[str, ...] = columns_in(header)
        self.complete: bool = manifest["complete"]

    @classmethod
    def open(cls, folder: str | Path) -> Activations:
        """Open what `capture` wrote to `folder`; shards are checked against their hashes when first read.

        Raises MissingFile if there is no manifest, CorruptFile if it was cut or altered, WrongFile if it is of another
        thing or version; warns if the capture was cut off.
        """
        acts = cls(Path(folder), read_manifest(Path(folder)))
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
        if not self._first:
            return sum(len(part) for part in self._columns(site, "token"))
        return sum(s["rows"].get(str(site), 0) for s in self._shards)

    def learnable(self) -> Activations:
        """The rows that a dictionary is learned from and judged on: this store, but for first positions of texts that
        are read forward, unless `kinds` of the capture had `bos`.

        A first position knows nothing but itself, and is so long that it would decide every error.
        """
        header = self._manifest["header"]
        if not leaves_first(header.get("reads_forward", False), header["kinds"]):
            return self
        return Activations(self.folder, self._manifest, self._owner, first=False)

    def damaged(self) -> dict[str, str]:
        """File name to what is wrong with it, for every shard that fails its check; reads all of them."""
        out = {}
        for record in self._shards:
            try:
                shard.check_shard(self.folder / record["file"], record)
            except shard.DamagedShard as problem:
                out[record["file"]] = str(problem)
        return out

    def good(self) -> Activations:
        """The same store without its damaged shards."""
        bad = self.damaged()
        kept = [s for s in self._shards if s["file"] not in bad]
        return Activations(self.folder, {**self._manifest, "shards": kept}, self._owner, first=self._first)

    def _open(self, record: Mapping[str, Any]) -> shard.ShardContents:
        name = record["file"]
        if name not in self._maps:
            shard.check_shard(self.folder / name, record)
            contents = shard.map_shard(self.folder / name)
            for address, rows in record["rows"].items():
                at = self.sites.index(Site.parse(address))
                shard.check_rows(contents, at, rows, self._manifest["widths"][address], self.columns)
            self._maps[name] = contents
        return self._maps[name]

    def read(self, site: Site, *, columns: bool = True) -> Block:
        """All rows of one site, in the order in which they were captured, in memory.

        Raises DamagedShard naming the file and the failed check.
        """
        at, address = self._index(site), str(site)
        wanted = self.columns if columns else ()
        names = [f"{at}.{name}" for name in ("x", *wanted)]
        parts = [self._kept(s, at, names) for s in self._shards if s["rows"].get(address)]
        if not parts:
            empty = torch.zeros(0, self._manifest["widths"].get(address, 0), dtype=self.dtype)
            return Block(empty, self._said({c: torch.zeros(0) for c in wanted}))
        x = torch.cat([p[f"{at}.x"] for p in parts])
        return Block(x, self._said({c: torch.cat([p[f"{at}.{c}"] for p in parts]) for c in wanted}))

    def blocks(self, site: Site) -> Iterator[Block]:
        """The rows of `read`, one shard after the other: no more than one shard is in memory.

        Raises DamagedShard naming the file and the failed check.
        """
        at, address = self._index(site), str(site)
        for record in self._shards:
            if record["rows"].get(address):
                part = self._kept(record, at, [f"{at}.{name}" for name in ("x", *self.columns)])
                yield Block(part[f"{at}.x"], self._said({c: part[f"{at}.{c}"] for c in self.columns}))

    def batches(
        self,
        site: Site,
        size: int,
        *,
        seed: int = 0,
        epochs: int | None = None,
        start: int = 0,
        window: int | None = WINDOW,
    ) -> Iterator[Tensor]:
        """Batches (size, d) of rows drawn without return across all shards, at constant memory.

        Each epoch has its own order, given by `seed`; what does not fill a batch waits for the next epoch's draw.
        `epochs` None goes on for ever; `start` skips that many batches at the cost of one window, so a run resumes
        where it was. Rows are mixed within windows of `window` rows, gathered from all over the store and held in
        memory; a store of at most one window is mixed whole. None holds nothing and draws every row from the whole
        store, which a disk answers slowly. The order depends on neither the shards nor who reads.
        Raises ValueError at once if the site has fewer rows than one batch.
        """
        return (rows for (rows,) in self.joint((site,), size, seed=seed, epochs=epochs, start=start, window=window))

    def joint(
        self,
        sites: Sequence[Site],
        size: int,
        *,
        seed: int = 0,
        epochs: int | None = None,
        start: int = 0,
        window: int | None = WINDOW,
    ) -> Iterator[tuple[Tensor, ...]]:
        """Batches of the same rows at several sites, one (size, d) per site in the order of `sites`.

        >>> for x, y in acts.joint((mlp_in, mlp_out), 1024, epochs=1): ...

        Options as for `batches`, which gives the same rows. Rows are the same where all their columns are. Raises
        ValueError at once where they are not, or are fewer than one batch.
        """
        if not sites:
            raise ValueError(f"no site was given; {self.folder} holds {', '.join(map(str, self.sites))}")
        total = self.rows(sites[0])
        if not 0 < size <= total:
            raise ValueError(f"a batch of {size} rows was asked for at {sites[0]}, which has {total}")
        if window is not None and window < 1:
            raise ValueError(f"a window of {window} rows was asked for; give 1 or more, or None for no window")
        for other in sites[1:]:
            self._check_aligned(sites[0], other)
        stored = [self._stored(site) for site in sites]
        return draw_batches(stored, size, seed=seed, epochs=epochs, start=start, window=window)

    def _said(self, columns: Mapping[str, Tensor]) -> RowColumns:
        return RowColumns({name: read_column(name, x) for name, x in columns.items()}, self.folder)

    def _kept(self, record: Mapping[str, Any], at: int, names: Sequence[str]) -> dict[str, Tensor]:
        """These tensors of a shard, without the rows that this store leaves out."""
        tensors = self._open(record).tensors
        if self._first:
            return {name: tensors[name] for name in names}
        keep = tensors[f"{at}.token"] != 0
        return {name: tensors[name][keep] for name in names}

    def _stored(self, site: Site) -> StoredRows | ChosenRows:
        at, address = self._index(site), str(site)
        held = [s for s in self._shards if s["rows"].get(address)]
        ends = torch.tensor([s["rows"][address] for s in held], dtype=torch.long).cumsum(0)
        rows = StoredRows(f"{at}.x", [partial(self._open, s) for s in held], ends, self.width(site), self.dtype)
        if self._first:
            return rows
        tokens = [self._open(s).tensors[f"{at}.token"] for s in held]
        return ChosenRows(rows, torch.cat(tokens).ne(0).nonzero()[:, 0])

    def _check_aligned(self, site: Site, other: Site) -> None:
        """Compare the columns of two sites, a shard at a time."""
        counts = self.rows(site), self.rows(other)
        mend = "a joint draw needs sites whose rows are the same; choose sites with the same tokens, patches and steps"
        if counts[0] != counts[1]:
            raise ValueError(f"site {str(site)!r} has {counts[0]} rows and {str(other)!r} has {counts[1]}; {mend}")
        for column in self.columns:
            for at, a, b in _pieces(self._columns(site, column), self._columns(other, column)):
                if not torch.equal(a, b):
                    i = int((a != b).nonzero()[0])
                    raise ValueError(
                        f"row {at + i} is of {column} {a[i].item()} at site {str(site)!r} and of {column} {b[i].item()} "
                        f"at {str(other)!r}; {mend}"
                    )

    def _columns(self, site: Site, column: str) -> Iterator[Tensor]:
        at, address = self._index(site), str(site)
        for record in self._shards:
            if record["rows"].get(address):
                yield self._kept(record, at, [f"{at}.{column}"])[f"{at}.{column}"]


def _pieces(one: Iterator[Tensor], two: Iterator[Tensor]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Two streams of as many rows, cut at the ends of either: where a piece begins, and the piece of both."""
    at, a, b = 0, torch.empty(0), torch.empty(0)
    while True:
        a = a if len(a) else next(one, a)
        b = b if len(b) else next(two, b)
        n = min(len(a), len(b))
        if not n:
            return
        yield at, a[:n], b[:n]
        at, a, b = at + n, a[n:], b[n:]
