"""Parts taken out while the subject runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.find.layout import after_first
from concept_probe.find.removals.plain import joint_change
from concept_probe.find.removals.readers import (
    CoefficientReader,
    ColumnReader,
    DirectionReader,
    FeatureReader,
    SpotReader,
)
from concept_probe.find.removals.removal import Elsewhere, Removal
from concept_probe.types import Moment, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

LookElsewhere = Callable[[CoefficientReader, Tensor, Moment], Elsewhere]
"""(reader, its coefficients (b, t, m), moment) -> what they are elsewhere."""


def nowhere(reader: CoefficientReader, c: Tensor, moment: Moment) -> Elsewhere:
    """For removals that read nothing but the coefficients at hand."""
    raise RuntimeError(f"nobody looked what coefficients at {reader.site} are elsewhere")


def without(
    subject: Subject, readers: Sequence[CoefficientReader], removal: Removal, keep: Tensor, look: LookElsewhere = nowhere,
    *, everywhere: bool = True,
) -> AbstractContextManager[None]:  # fmt: skip
    """The subject with a share `1 - keep` (players,) of each player taken out by `removal`; at `keep` 1 no bit changes.

    >>> with without(subject, [ColumnReader(site, (3, 9), (0, 0))], Zero(), torch.zeros(1)):
    ...     pictures = subject.generate(queries)

    In between, what stands in its place is mixed with what was there. `everywhere` False leaves alone the empty or
    negative prompt of guidance, and the first position of a text that is read forward, on which attention rests.
    Raises ValueError as `tap` does, and where two readers are at one site.
    """
    sites = sites_of(readers, removal)
    act = _joint if removal.joint else _each
    actions = {
        site: _at(act(subject, reader, removal, keep, look), everywhere)
        for site, reader in zip(sites, readers, strict=True)
    }
    return tap(subject, actions)


def sites_of(readers: Sequence[CoefficientReader], removal: Removal) -> list[Site]:
    """Where a removal acts for each reader. Raises ValueError where two read one tensor: neither would see it as it was."""
    sites = [site_of(reader, removal) for reader in readers]
    twice = next((site for site in sites if sites.count(site) > 1), None)
    if twice is not None:
        raise ValueError(
            f"two kinds of part at {twice} were to be taken out at once, such as features of two autoencoders; attribute one "
            "kind at a time"
        )
    return sites


def site_of(reader: CoefficientReader, removal: Removal) -> Site:
    """Where a removal acts: on coefficients where they are read; on directions where they are written."""
    if removal.joint and isinstance(reader, ColumnReader):
        return Site(reader.site.component, reader.site.path, "out")
    return reader.site


Act = Callable[[Tensor, Moment], Tensor]


def _at(act: Act, everywhere: bool) -> Callable[[Tensor, Moment], Tensor]:
    """`act`, which works on (b, t, d), on a site's own shape, and only on the rows that are meant."""

    def fn(x: Tensor, moment: Moment) -> Tensor:
        flat = rows_of(x)
        new = act(flat, moment)
        if not everywhere:
            mask = torch.tensor([branch == "cond" for branch in moment.branches], device=x.device)[:, None, None]
            behind = after_first(flat, moment)
            mask = mask if behind is None else mask & behind
            new = torch.where(mask, new, flat)
        return unflattened(new.to(x.dtype), x)

    return fn


def rows_of(x: Tensor) -> Tensor:
    """A site's tensor as (b, t, d): a picture's patches in their order, one row where it is (b, d)."""
    if x.ndim == 4:
        return x.flatten(2).mT
    return x[:, None] if x.ndim == 2 else x


def unflattened(new: Tensor, x: Tensor) -> Tensor:
    """Undo `rows_of`: `new` in the shape of x."""
    if x.ndim == 4:
        return new.mT.reshape(x.shape)
    return new[:, 0] if x.ndim == 2 else new


def _each(subject: Subject, reader: CoefficientReader, removal: Removal, keep: Tensor, look: LookElsewhere) -> Act:
    def act(x: Tensor, moment: Moment) -> Tensor:
        c = reader.read(x)
        stays = reader.kept(keep, moment, c).expand_as(c)
        if bool((stays == 1).all()):
            return x
        elsewhere = look(reader, c, moment) if removal.reads != "nothing" else _NOTHING
        other = removal.coefficients(c, elsewhere).to(c).expand_as(c)
        mixed = torch.where(stays == 0, other, c + (1 - stays) * (other - c))
        return reader.put(x, c, torch.where(stays == 1, c, mixed), moment)

    return act


class _Nothing:
    """Elsewhere, for removals that do not look there."""

    def mean(self) -> Tensor:
        raise RuntimeError("a removal that says it reads nothing asked for coefficients of other rows")

    spread = another = normal = typical = mean


_NOTHING = _Nothing()


def _joint(subject: Subject, reader: CoefficientReader, removal: Removal, keep: Tensor, look: LookElsewhere) -> Act:
    vectors, owners, mean = span_of(subject, reader)
    taken = 1 - keep[list(owners)]

    def act(x: Tensor, moment: Moment) -> Tensor:
        if bool((taken == 0).all()):
            return x
        start = x if mean is None else x - mean.to(x)
        return x + joint_change(start, vectors.to(x), taken.to(x))

    return act


def span_of(subject: Subject, reader: CoefficientReader) -> tuple[Tensor, tuple[int, ...], Tensor | None]:
    """What the parts of a reader write, (m, d), whose each is, and the point from which they are read.

    Raises ValueError for whole places, which write everything.
    """
    if isinstance(reader, ColumnReader):
        weight = subject.matrix(Site(reader.site.component, reader.site.path, "weight")).detach()
        return weight[:, list(reader.items)].mT, reader.owners, None
    if isinstance(reader, FeatureReader):
        return reader.codec.decoder.detach()[list(reader.features)], reader.owners, None
    if isinstance(reader, DirectionReader):
        return reader.basis.mT, reader.owners, reader.mean
    assert isinstance(reader, SpotReader)
    raise ValueError(
        f"{reader.site} was to be taken out whole by removal 'project', which takes out directions; a whole place has none: "
        "use removal 'zero' or 'mean'"
    )
