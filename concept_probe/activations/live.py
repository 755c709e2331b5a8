"""Rows straight from a running subject, mixed in a buffer: training without a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations.columns import COLUMNS, stored_column
from concept_probe.activations.counts import RowCounts
from concept_probe.activations.mixing_buffer import MixingSchedule
from concept_probe.activations.positions import leaves_first
from concept_probe.activations.rows import CaptureOptions, RowCollector, check_names, chosen_sites
from concept_probe.activations.shuffle import cpu_generator, permuted
from concept_probe.families.subject import SAMPLING
from concept_probe.families.text.tokens import queries_of
from concept_probe.registry import UnknownName
from concept_probe.types import Prompt, Query, Sampling, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

_ROWS = 65536


class Live:
    """Sites of a running subject, drawn from as one draws from a store; nothing is written.

    >>> rows = Live(subject, prompts, roles=["text_stream"])
    >>> sae = train_sae(rows, site=rows.sites[0])

    A draw runs the subject over the prompts in a seeded order, as far as the sites drawn, and holds about `rows`
    rows of each on `options.device` (twice that while it refills). Options as for `capture`; first positions of texts
    that are read forward are left out unless `kinds` has `bos`, as training leaves them out of a store.

    The subject must stay as it is while a draw goes on. Raises UnknownName for an unknown role or site; ValueError
    if text sites, which need no sampling, are given together with others.
    """

    def __init__(
        self,
        subject: Subject,
        prompts: Sequence[Prompt] | Sequence[Query],
        *,
        roles: Sequence[str] = (),
        sites: Sequence[Site] = (),
        kinds: Sequence[str] | None = None,
        rows: int = _ROWS,
        sampling: Sampling = SAMPLING,
        options: CaptureOptions = CaptureOptions(),
    ) -> None:
        self.queries = tuple(queries_of(prompts))
        if not self.queries:
            raise ValueError("no prompt was given to draw from")
        self.sites = chosen_sites(subject, roles, sites)
        check_names(kinds, options.branches)
        if len({subject.is_text(site) for site in self.sites}) > 1:
            text = next(s for s in self.sites if subject.is_text(s))
            raise ValueError(
                f"site {str(text)!r} needs no sampling and others do, so their rows come at different rates; "
                "make one Live for text sites and one for the others"
            )
        self.subject = subject.name
        self.buffer = rows
        self.dtype = options.dtype
        self._running = subject
        self._sampling = sampling
        self._kinds = None if kinds is None else tuple(kinds)
        self._first = not leaves_first(subject.reads_forward, kinds)
        self._device = subject.device if options.device is None else options.device
        self._options = replace(options, device=self._device)
        self._counts: dict[Site, RowCounts] = {}

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return tuple(q.prompt for q in self.queries)

    @property
    def skips_first(self) -> bool:
        """Whether first positions of texts are left out."""
        return not self._first

    @property
    def weight_hash(self) -> str:
        """Of the subject as it is now; reads every weight."""
        return self._running.weight_hash()

    def width(self, site: Site) -> int:
        """Numbers per row, d; runs one prompt the first time."""
        return self._count(site).width

    def rows(self, site: Site) -> int:
        """Rows of one epoch, which is all prompts once; runs one prompt the first time."""
        return self._count(site).total

    def batches(
        self, site: Site, size: int, *, seed: int = 0, epochs: int | None = None, start: int = 0
    ) -> Iterator[Tensor]:
        """Batches (size, d) of rows at one site, without return within an epoch.

        Each epoch has its own order of the prompts; rows of its end are mixed with the next epoch's. `epochs` None
        goes on for ever; `start` skips that many batches at the cost of filling the buffer, three halves of it. The
        same seed gives the same bits again, wherever the draw starts, on the same machine and at the same pass size.
        Raises ValueError at once for a buffer too small for a prompt or a batch; FloatingPointError naming site,
        prompt and step of a value that is not finite.
        """
        return (rows for (rows,) in self.joint((site,), size, seed=seed, epochs=epochs, start=start))

    def joint(
        self, sites: Sequence[Site], size: int, *, seed: int = 0, epochs: int | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, ...]]:
        """Batches of the same rows at several sites, one (size, d) per site in the order of `sites`, from one pass.

        Options as for `batches`. Raises ValueError where the sites' rows differ in number or in a column.
        """
        if not sites:
            raise ValueError(f"no site was given; this draws from {', '.join(map(str, self.sites))}")
        counts = self._count(sites[0])
        for other in sites[1:]:
            if self._count(other).of_each != counts.of_each:
                raise ValueError(
                    f"site {str(sites[0])!r} gives {counts.total} rows and {str(other)!r} gives "
                    f"{self._count(other).total}; a joint draw needs sites with the same tokens, patches and steps"
                )
        half = self.buffer // 2
        if max(counts.of_each) > half:
            raise ValueError(
                f"one prompt gives {max(counts.of_each)} rows at {str(sites[0])!r}, more than half of a buffer of "
                f"rows={self.buffer}; raise rows, or keep fewer of kinds= or options.steps"
            )
        available = counts.total * (1 if epochs is None else epochs)
        if size < 1 or (epochs is not None and size > available) or not counts.total:
            raise ValueError(f"a batch of {size} rows was asked for at {str(sites[0])!r}, which gives {available}")
        chunk = max(1, half * len(self.queries) // counts.total)
        return self._drawn(tuple(sites), size, seed, epochs, start, chunk)

    def _count(self, site: Site) -> RowCounts:
        if site not in self.sites:
            raise UnknownName("site", str(site), map(str, self.sites), "the sites that this draws from")
        if site not in self._counts:
            got = self._run((site,), [0])[site]
            pooled = bool((got["token"] < 0).any())
            chosen = self._kinds if self._running.axis(site) == "token" and not pooled else None
            self._counts[site] = RowCounts.of(
                self._running, self.queries, got["x"], chosen, first=self._first, component=site.component
            )
        return self._counts[site]

    def _run(self, sites: tuple[Site, ...], numbers: Sequence[int]) -> dict[Site, dict[str, Tensor]]:
        """The rows `x` (n, d) of some prompts and their columns, per site; by prompt, step, branch and place."""
        queries = [self.queries[i] for i in numbers]
        parts: dict[Site, list[Mapping[str, Tensor]]] = {site: [] for site in sites}

        def take(site: Site, x: Tensor, columns: Mapping[str, Tensor], start: int) -> None:
            parts[site].append({"x": x, **columns})

        lost = "no row of this pass was given out"
        here = RowCollector(
            self._running, queries, self._kinds, self._options, take, lost=lost, numbers=numbers, first=self._first
        )
        for _ in here.run(sites, self._sampling):
            pass
        return {site: _sorted(parts.pop(site)) for site in sites}

    def _drawn(
        self, sites: tuple[Site, ...], size: int, seed: int, epochs: int | None, start: int, chunk: int
    ) -> Iterator[tuple[Tensor, ...]]:
        n = len(self.queries)
        running = self._count(sites[0]).running(lambda epoch: _order(torch.arange(n), n, seed, epoch))

        def rows_before(number: int) -> int:
            place = number * chunk if epochs is None else min(number * chunk, epochs * n)
            return running(*divmod(place, n))

        mix = MixingSchedule(rows_before, None if epochs is None else -(-epochs * n // chunk))
        number = mix.at(start * size)
        skip = start * size - mix.before(number)
        held: dict[tuple[int, int], tuple[Tensor, ...]] = {}
        carry: tuple[Tensor, ...] = ()
        while mix.count is None or number < mix.count:
            wanted = mix.members(number)
            for c in dict.fromkeys(c for c, _ in wanted):
                if not any(key in held for key in wanted if key[0] == c):
                    end = (c + 1) * chunk if epochs is None else min((c + 1) * chunk, epochs * n)
                    self._fill(held, sites, [divmod(p, n) for p in range(c * chunk, end)], c, mix, seed, number)
            leaving = [held.pop(key) for key in wanted]
            length = sum(len(third[0]) for third in leaving)
            mixed = torch.randperm(length, generator=cpu_generator(seed * 1_000_003 + 2 * number + 1))[skip:].to(
                self._device
            )
            rows = tuple(torch.cat([third[i] for third in leaving])[mixed] for i in range(len(sites)))
            del leaving
            rows = tuple(map(torch.cat, zip(carry, rows, strict=True))) if carry else rows
            whole = len(rows[0]) // size * size
            for at in range(0, whole, size):
                yield tuple(x[at : at + size] for x in rows)
            carry = tuple(x[whole:].clone() for x in rows)
            number, skip = number + 1, 0

    def _fill(
        self,
        held: dict[tuple[int, int], tuple[Tensor, ...]],
        sites: tuple[Site, ...],
        places: Sequence[tuple[int, int]],
        chunk: int,
        mix: MixingSchedule,
        seed: int,
        draw: int,
    ) -> None:
        """Run the prompts at `places` (epoch, place in its order), and hold those thirds that draw `draw` or a later
        one needs."""
        n = len(self.queries)
        numbers: list[int] = []
        for epoch, of in groupby(places, key=itemgetter(0)):
            numbers += _order(torch.tensor([place for _, place in of]), n, seed, epoch).tolist()
        got = self._run(sites, numbers)
        expected = mix.rows_before(chunk + 1) - mix.rows_before(chunk)
        first = got[sites[0]]
        for site in sites:
            if len(got[site]["x"]) != expected:
                raise ValueError(
                    f"prompts {min(numbers)} to {max(numbers)} gave {len(got[site]['x'])} rows at {str(site)!r} and "
                    f"{expected} were expected, so no place in this stream can be found again; capture to a store"
                )
            for column in COLUMNS:
                if not torch.equal(got[site][column], first[column]):
                    raise ValueError(
                        f"the rows of {str(sites[0])!r} and {str(site)!r} differ in column {column}; a joint draw "
                        "needs sites with the same tokens, patches and steps"
                    )
        order = torch.randperm(expected, generator=cpu_generator(seed * 1_000_003 + 2 * chunk)).to(self._device)
        for third in range(3):
            if mix.draw_of(chunk, third) >= draw:
                a, b = mix.span(chunk, third)
                held[chunk, third] = tuple(got[site]["x"][order[a:b]] for site in sites)


def _order(places: Tensor, n: int, seed: int, epoch: int) -> Tensor:
    """Which of n prompts come at these places (m,) of an epoch."""
    return permuted(places, n, seed * 1_000_003 + epoch)


def _sorted(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Join rows in an order that does not depend on how prompts were batched."""
    if not parts:
        return {"x": torch.empty(0, 0), **{c: stored_column(c, torch.empty(0)) for c in COLUMNS}}
    whole = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
    order = torch.arange(len(whole["prompt"]))
    for column in ("patch", "token", "branch", "step", "prompt"):
        order = order[whole[column][order].argsort(stable=True)]
    return {name: x[order.to(x.device)] for name, x in whole.items()}
