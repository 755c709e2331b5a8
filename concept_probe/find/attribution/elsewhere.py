"""What coefficients are in other rows: looked up once, on other prompts and on the concept's own."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.find.removals.acting import rows_of
from concept_probe.find.removals.readers import CoefficientReader
from concept_probe.find.removals.removal import Removal
from concept_probe.types import FORGET_KINDS, OTHER_KINDS, Concept, Kind, Moment, Prompt, Query, Sampling, evenly

if TYPE_CHECKING:
    from concept_probe.families import Subject

NO_TOKEN = -1
"""The kind of rows that are no text tokens."""


@dataclass(frozen=True, eq=False)
class SeenRows:
    """Coefficients of one prompt at one site in one step."""

    c: Tensor
    """(t, m)"""
    kinds: Tensor
    """(t,) indices into TOKEN_KINDS, or `NO_TOKEN`"""

    def of_kind(self, kind: int) -> Tensor:
        """(r, m): those of a kind of token; all where none is of that kind."""
        chosen = self.c[self.kinds == kind]
        return chosen if len(chosen) else self.c


SeenAt = dict[int, dict[int | None, list[SeenRows]]]
"""By number of the reader and step, in the order of the prompts."""


@dataclass(frozen=True, eq=False)
class OtherRows:
    """What was seen in passes over other prompts, and over the concept's own, with nothing taken out."""

    readers: tuple[CoefficientReader, ...]
    others: SeenAt
    own: SeenAt
    seed: int
    _found: dict[object, Tensor] = field(default_factory=dict)

    def at(self, reader: CoefficientReader, c: Tensor, moment: Moment) -> RowsElsewhere:
        """Those that belong to the rows of coefficients c (b, t, m) at a reader."""
        return RowsElsewhere(self, next(i for i, r in enumerate(self.readers) if r is reader), c, moment)

    def kept(self, key: object, made: Callable[[], Tensor]) -> Tensor:
        if key not in self._found:
            self._found[key] = made()
        return self._found[key]


@dataclass(frozen=True, eq=False)
class RowsElsewhere:
    """What stands elsewhere for some rows; see `Elsewhere`."""

    rows: OtherRows
    number: int
    """Of the reader."""
    c: Tensor
    """(b, t, m)"""
    moment: Moment

    def mean(self) -> Tensor:
        return self._per_kind("mean", lambda rows: rows.mean(0))

    def spread(self) -> Tensor:
        return self._per_kind("spread", lambda rows: rows.std(0, correction=0))

    def typical(self) -> Tensor:
        def mean_of_nonzero() -> Tensor:
            rows = torch.cat([seen.c for step in self.rows.own[self.number].values() for seen in step])
            return rows.sum(0) / (rows != 0).sum(0).clamp_min(1)

        return self.rows.kept((self.number, "typical"), mean_of_nonzero).to(self.c)

    def another(self) -> Tensor:
        out = torch.zeros_like(self.c)
        prompts = self._step()
        for row, asked in enumerate(self.moment.prompts):
            drawn = torch.Generator().manual_seed(zlib.crc32(f"{self.rows.seed}/{asked}".encode()))
            donor = prompts[int(torch.randint(len(prompts), (1,), generator=drawn))]
            for kind in self.kinds[row].unique().tolist():
                here = (self.kinds[row] == kind).nonzero()[:, 0]
                given = donor.of_kind(kind)
                out[row, here] = given[torch.arange(len(here)) % len(given)].to(out)
        return out

    def normal(self) -> Tensor:
        site, out = self.rows.readers[self.number].site, torch.empty_like(self.c)
        for row, asked in enumerate(self.moment.prompts):
            name = f"{self.rows.seed}/{site}/{asked}/{self.moment.step}"
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            out[row] = torch.randn(self.c.shape[1:], generator=generator).to(out)
        return out

    @property
    def kinds(self) -> Tensor:
        """(b, t), on the CPU."""
        return kinds_in(self.c, self.moment)

    def _step(self) -> list[SeenRows]:
        """What was seen in the same step; in any where that step was not seen, as where a text is written on."""
        by_step = self.rows.others[self.number]
        return by_step.get(self.moment.step) or [seen for step in by_step.values() for seen in step]

    def _per_kind(self, what: str, of: Callable[[Tensor], Tensor]) -> Tensor:
        kinds, out = self.kinds, torch.zeros_like(self.c)
        for kind in kinds.unique().tolist():
            key = (self.number, what, self.moment.step, kind)
            value = self.rows.kept(key, lambda kind=kind: of(self._rows(kind)))
            out[(kinds == kind).to(out.device)] = value.to(out)
        return out

    def _rows(self, kind: int) -> Tensor:
        """(r, m): rows of the same kind of token; of any where other prompts have none such."""
        seen = self._step()
        same = [one.c[one.kinds == kind] for one in seen]
        found = torch.cat(same)
        return found if len(found) else torch.cat([one.c for one in seen])


def kinds_in(c: Tensor, moment: Moment) -> Tensor:
    """(b, t), on the CPU: kinds of token of the rows of c (b, t, m), or `NO_TOKEN`."""
    if moment.token_kinds is not None and moment.token_kinds.shape == c.shape[:2]:
        return moment.token_kinds.cpu()
    return torch.full(c.shape[:2], NO_TOKEN)


def look_elsewhere(
    subject: Subject, concept: Concept, readers: Sequence[CoefficientReader], removal: Removal, sampling: Sampling,
    *, most: int = 32, seed: int = 0,
) -> OtherRows:  # fmt: skip
    """Run the prompts that a removal reads, of the fit split, `most` at most of each side, and keep their coefficients.

    Raises ValueError where the concept has no such prompts.
    """
    wanted: dict[str, tuple[Kind, ...]] = {"others": OTHER_KINDS, "own": FORGET_KINDS}
    seen: dict[str, SeenAt] = {"others": {}, "own": {}}
    if removal.reads in wanted:
        kinds = wanted[removal.reads]
        prompts = evenly([p for kind in kinds for p in concept.prompts(kind, "fit")], most)
        if not prompts:
            raise ValueError(
                f"removal {removal.name!r} reads {'other' if removal.reads == 'others' else 'the concept'} prompts, and "
                f"{concept.name!r} has none in {', '.join(kinds)} of split 'fit'; give it some, or use removal='zero'"
            )
        seen[removal.reads] = _seen(subject, readers, prompts, sampling)
    return OtherRows(tuple(readers), seen["others"], seen["own"], seed)


@torch.no_grad()
def _seen(
    subject: Subject, readers: Sequence[CoefficientReader], prompts: Sequence[Prompt], sampling: Sampling
) -> SeenAt:  # fmt: skip
    out: SeenAt = {i: {} for i in range(len(readers))}

    def look(number: int, reader: CoefficientReader) -> Callable[[Tensor, Moment], None]:
        def fn(x: Tensor, moment: Moment) -> None:
            c = reader.read(rows_of(x))
            kinds = kinds_in(c, moment)
            for row, branch in enumerate(moment.branches):
                if branch == "cond" and moment.prompts[row] >= 0:
                    read = torch.ones(c.shape[1], dtype=torch.bool)
                    if moment.places is not None and moment.places.shape == c.shape[:2]:
                        read = moment.places[row].cpu() > 0  # behind the first, which is not acted on
                    if not bool(read.any()):
                        continue
                    kept = c[row].detach()[read.to(c.device)]
                    out[number].setdefault(moment.step, []).append(SeenRows(kept.cpu(), kinds[row][read]))

        return fn

    sites = [reader.site for reader in readers]
    size = 64 if all(subject.is_text(site) for site in sites) else sampling.batch
    looks = {reader.site: look(i, reader) for i, reader in enumerate(readers)}
    for start in range(0, len(prompts), size):
        with tap(subject, looks):
            subject.run_to(sites, [Query(p) for p in prompts[start : start + size]], sampling)
    return out
