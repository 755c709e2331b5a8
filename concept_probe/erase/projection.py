"""Project the concept's directions out of a site: LEACE, difference of means, R-LACE and RepIt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from concept_probe.erase.deltas import Delta, Sum
from concept_probe.erase.edit import Edit
from concept_probe.erase.fold import fold, reads_with_bias
from concept_probe.erase.intervention import Change, Intervention
from concept_probe.erase.provenance import made_by
from concept_probe.find.directions import DIRECTION_KINDS, Projection, difference_of_means, leace
from concept_probe.find.layout import back, has_tokens, last, token_mask
from concept_probe.find.repit import repit
from concept_probe.find.rlace import Game, rlace
from concept_probe.types import TOKEN_KINDS, Concept, Moment, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

How = Literal["intervention", "bake"]


@dataclass(frozen=True)
class Leace:
    """Hide the concept from every linear reader of a site, with the least change (arXiv 2306.03819).

    >>> edit = Leace(how="bake")(subject, concept)
    """

    name: ClassVar[str] = "leace"
    how: How = "bake"
    """`intervention` projects while the subject runs; `bake` folds the projection into weights."""
    strength: float = 1.0
    """Factor on what is taken out."""
    role: str = "text_out"
    """Role of the sites to fit at, where `found` holds no projection."""
    kinds: tuple[str, ...] = DIRECTION_KINDS
    """Kinds of token that directions are fitted on."""
    tokens: tuple[str, ...] = TOKEN_KINDS
    """For an intervention: kinds of token that are acted on. A baked projection acts on all."""
    shrinkage: float = 0.01
    """See `find.leace`."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Intervention | Edit:
        """`found`: Subspaces of `find.leace`; fitted at all sites of `role` where there is none."""
        usable = [s for s in found if s.space == "activation" and s.codec is None and s.dual is not None]
        if not usable:
            usable = [
                leace(subject, concept, site, kinds=self.kinds, shrinkage=self.shrinkage,
                      affine=self.how == "intervention" or reads_with_bias(subject, site))
                for site in subject.sites(self.role)
            ]  # fmt: skip
        return _erasure(self, subject, concept, usable)


@dataclass(frozen=True)
class Difference:
    """Set what lies along the concept's difference of means to the average of other prompts.

    >>> guard = Difference(how="intervention", role="text_stream")(subject, concept)
    """

    name: ClassVar[str] = "difference"
    how: How = "bake"
    """`intervention` projects while the subject runs; `bake` folds the projection into weights."""
    strength: float = 1.0
    """Factor on what is taken out; 2 reflects."""
    role: str = "text_out"
    """Role of the sites to fit at, where `found` holds no direction."""
    kinds: tuple[str, ...] = DIRECTION_KINDS
    """Kinds of token that directions are fitted on, one each."""
    tokens: tuple[str, ...] = TOKEN_KINDS
    """For an intervention: kinds of token that are acted on. A baked projection acts on all."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Intervention | Edit:
        """`found`: Subspaces of `find.difference_of_means`; fitted at all sites of `role` where there is none."""
        usable = _orthogonal(found) or [
            difference_of_means(subject, concept, site, kinds=self.kinds) for site in subject.sites(self.role)
        ]
        return _erasure(self, subject, concept, usable)


@dataclass(frozen=True)
class Rlace:
    """Set what the best linear readers of the concept need to the average of other prompts (arXiv 2201.12091).

    >>> guard = Rlace(how="intervention", role="text_stream")(subject, concept)
    """

    name: ClassVar[str] = "rlace"
    how: How = "bake"
    """`intervention` projects while the subject runs; `bake` folds the projection into weights."""
    strength: float = 1.0
    """Factor on what is taken out; 2 reflects."""
    role: str = "text_out"
    """Role of the sites to fit at, where `found` holds no direction."""
    kinds: tuple[str, ...] = DIRECTION_KINDS
    """Kinds of token that readers are fitted on, one each."""
    tokens: tuple[str, ...] = TOKEN_KINDS
    """For an intervention: kinds of token that are acted on. A baked projection acts on all."""
    rank: int | None = None
    """Directions taken out at each site; None: as many as readers."""
    rounds: int = 300
    """Steps of each side of the game, see `find.rlace.Game`."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Intervention | Edit:
        """`found`: Subspaces of `find.rlace`; fitted at all sites of `role` where there is none."""
        usable = _orthogonal(found) or [
            rlace(subject, concept, site, kinds=self.kinds, rank=self.rank, game=Game(rounds=self.rounds))
            for site in subject.sites(self.role)
        ]
        return _erasure(self, subject, concept, usable)


@dataclass(frozen=True)
class Repit:
    """Set what lies along the concept's isolated difference of means to the average of other prompts.

    >>> guard = Repit(how="intervention", role="text_stream")(subject, concept)
    """

    name: ClassVar[str] = "repit"
    how: How = "bake"
    """`intervention` projects while the subject runs; `bake` folds the projection into weights."""
    strength: float = 1.0
    """Factor on what is taken out; 2 reflects."""
    role: str = "text_out"
    """Role of the sites to fit at, where `found` holds no direction."""
    kinds: tuple[str, ...] = DIRECTION_KINDS
    """Kinds of token that directions are fitted on, one each."""
    tokens: tuple[str, ...] = TOKEN_KINDS
    """For an intervention: kinds of token that are acted on. A baked projection acts on all."""
    share: float = 0.75
    """Of the direction's energy in the span of other concepts' directions, how much is left out of it, 0..1."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Intervention | Edit:
        """`found`: Subspaces of `find.repit`; fitted at all sites of `role` where there is none."""
        usable = _orthogonal(found) or [
            repit(subject, concept, site, kinds=self.kinds, share=self.share) for site in subject.sites(self.role)
        ]
        return _erasure(self, subject, concept, usable)


def _orthogonal(found: Sequence[Subspace]) -> list[Subspace]:
    """Directions of an activation site that are projected out at right angles."""
    return [s for s in found if s.space == "activation" and s.codec is None and s.dual is None]


def _erasure(
    options: Leace | Difference | Rlace | Repit, subject: Subject, concept: Concept, spaces: Sequence[Subspace]
) -> Intervention | Edit:
    origin = made_by(options, subject, concept, ranks={str(space.site): space.rank for space in spaces})
    if len({space.site for space in spaces}) < len(spaces):
        raise ValueError(f"{options.name}: two subspaces at one site; put them into one Subspace")
    spaces = [space for space in spaces if space.rank]
    if options.how == "intervention":
        actions: dict[Site, Change] = {}
        for space in spaces:
            tokens = options.tokens if has_tokens(subject, space.site) else TOKEN_KINDS
            actions[space.site] = _action(space, tokens)
        return Intervention(options.name, concept.name, actions, options.strength, origin)
    if options.how != "bake":
        raise ValueError(f"{options.name}: how is {options.how!r}; it is 'intervention' or 'bake'")
    deltas: dict[str, Delta] = {}
    dropped: list[str] = []
    for space in spaces if options.strength else ():
        folded = fold(subject, space.site, as_projection(space), options.strength)
        deltas = _merged(deltas, folded.deltas)
        dropped += folded.affine_dropped
    origin["affine_dropped"] = sorted(set(dropped))
    return Edit(options.name, concept.name, deltas, subject.weight_hash(), origin)


def as_projection(space: Subspace) -> Projection:
    """The projection that a subspace stands for."""
    return Projection(space.basis, space.basis if space.dual is None else space.dual, space.mean)


def _action(space: Subspace, tokens: Sequence[str]) -> Callable[[Tensor, Moment], Tensor]:
    projection = as_projection(space)

    def change(x: Tensor, moment: Moment) -> Tensor:
        rows = last(x)
        basis, dual = projection.basis.to(rows), projection.dual.to(rows)
        shifted = rows if projection.mean is None else rows - projection.mean.to(rows)
        delta = -((shifted @ dual) @ basis.mT)
        mask = token_mask(x, moment, tokens)
        return back(delta if mask is None else delta * mask)

    return change


def _merged(first: dict[str, Delta], second: dict[str, Delta]) -> dict[str, Delta]:
    """Deltas of two sites that the same matrices read: both at once."""
    out = dict(first)
    for where, delta in second.items():
        out[where] = Sum((out[where], delta)) if where in out else delta
    return out
