"""Players: parts of a model that are taken out together, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from concept_probe.arguments import SeedNumber, check_arguments
from concept_probe.families.text.kinds import kind_numbers
from concept_probe.find.layout import has_tokens
from concept_probe.find.removals.readers import (
    CoefficientReader,
    ColumnReader,
    DirectionReader,
    FeatureReader,
    SpotReader,
    TokenSet,
)
from concept_probe.find.vectors.columns import hidden_site, matrix_site
from concept_probe.learn.belongs import check_belongs
from concept_probe.types import TOKEN_KINDS, Site, SparseCoder, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class Spot:
    """All of a site, at some kinds of token and in some steps.

    >>> Spot(subject.sites("text_mlp_out")[0], tokens=("eos",))
    """

    site: Site
    tokens: tuple[str, ...] = TOKEN_KINDS
    """Kinds of token; all of them at sites whose rows are no text tokens."""
    steps: tuple[int, ...] | None = None
    """Passes of the denoiser as `Moment.step` counts them, or of texts how many tokens were written before; None: all."""
    turn: SeedNumber | None = None
    """Seed of a random turn of what is taken out: a control as large as the real removal. None: as it is."""

    def __post_init__(self) -> None:
        check_arguments(self, "spot")
        kind_numbers(self.tokens)

    def __str__(self) -> str:
        kinds = "" if set(self.tokens) >= set(TOKEN_KINDS) else f" at {', '.join(self.tokens)}"
        steps = "" if self.steps is None else f" in steps {', '.join(map(str, self.steps))}"
        return f"{self.site}{kinds}{steps}"


PlayerPart = Subspace | Spot


@dataclass(frozen=True)
class Player:
    """What is taken out together: one subspace or spot, or several that act jointly."""

    name: str
    parts: tuple[PlayerPart, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError(
                f"player {self.name!r} has no part, so nothing can be taken out; give a Subspace or a Spot"
            )


def players_of(given: Sequence[Player | PlayerPart | Sequence[PlayerPart]]) -> tuple[Player, ...]:
    """Players as they are given: by name, one part each, or several parts that act jointly. Names are made distinct.

    Raises ValueError for no player, TypeError for what is none.
    """
    out: list[Player] = []
    for one in given:
        if isinstance(one, Player):
            out.append(one)
        elif isinstance(one, Subspace | Spot):
            out.append(Player(part_name(one), (one,)))
        elif isinstance(one, list | tuple) and all(isinstance(part, Subspace | Spot) for part in one):
            out.append(Player(" + ".join(map(part_name, one[:2])) + (" + ..." if len(one) > 2 else ""), tuple(one)))
        else:
            raise TypeError(
                f"a player is a {type(one).__name__}; it is a Subspace, a Spot, several of them, or a Player with a name"
            )
    if not out:
        raise ValueError(
            "no players were given, so there is nothing to share among them; find features or vectors first"
        )
    names = [p.name for p in out]
    return tuple(p if names.count(p.name) == 1 else Player(f"{p.name} #{i}", p.parts) for i, p in enumerate(out))


def part_name(part: PlayerPart) -> str:
    """A short name: the address, and which features."""
    if isinstance(part, Spot) or not part.features:
        return str(part) if isinstance(part, Spot) else str(part.site)
    features = ", ".join(map(str, part.features[:4])) + (", ..." if len(part.features) > 4 else "")
    return f"{part.site} feature{'s' if len(part.features) > 1 else ''} {features}"


def readers_of(subject: Subject, players: Sequence[Player]) -> tuple[CoefficientReader, ...]:
    """How all parts of the players are read and put back, one reader for each kind of part at each site.

    Raises ValueError for a part that the subject lacks or that was found in other weights, and for one of two players.
    """
    columns: dict[Site, dict[int, int]] = {}
    features: dict[int, tuple[SparseCoder, dict[int, int]]] = {}
    directions: dict[Site, list[tuple[Subspace, int]]] = {}
    spots: dict[Site, list[TokenSet]] = {}
    taken = _Taken(players)
    for owner, player in enumerate(players):
        for part in player.parts:
            if isinstance(part, Spot):
                spots.setdefault(part.site, []).append(_token_set(subject, part, owner))
                continue
            _check_found_here(subject, part, player)
            if part.codec is not None:
                check_belongs(part.codec, subject)
                _, held = features.setdefault(id(part.codec), (part.codec, {}))
                for j in part.features:
                    taken.take(held, j, owner, f"feature {j} at {part.site}")
            elif part.space == "parameter" and part.site.item is not None:
                subject.parameter(part.site)
                place = hidden_site(subject, matrix_site(part.site))
                taken.take(columns.setdefault(place, {}), part.site.item, owner, f"column {part.site}")
            else:
                site = Site(part.site.component, part.site.path, "in") if part.space == "parameter" else part.site
                directions.setdefault(site, []).append((part, owner))
    for site, sets in spots.items():
        taken.refuse_overlap(site, sets)
    return (
        *(ColumnReader(site, tuple(held), tuple(held.values())) for site, held in columns.items()),
        *(FeatureReader(codec, tuple(held), tuple(held.values())) for codec, held in features.values()),
        *(_directions(site, parts) for site, parts in directions.items()),
        *(SpotReader(site, tuple(sets)) for site, sets in spots.items()),
    )


class _Taken:
    """Who owns which part."""

    def __init__(self, players: Sequence[Player]) -> None:
        self.players = players

    def take(self, held: dict[int, int], item: int, owner: int, what: str) -> None:
        other = held.setdefault(item, owner)
        if other != owner:
            self._refuse(what, other, owner)

    def refuse_overlap(self, site: Site, sets: Sequence[TokenSet]) -> None:
        for i, a in enumerate(sets):
            for b in sets[:i]:
                same_step = a.steps is None or b.steps is None or set(a.steps) & set(b.steps)
                kinds = set(a.kinds) & set(b.kinds)
                if same_step and kinds:
                    self._refuse(f"{site} at {', '.join(sorted(kinds))}", b.owner, a.owner)

    def _refuse(self, what: str, first: int, second: int) -> None:
        a, b = self.players[first].name, self.players[second].name
        raise ValueError(
            f"{what} is part of players {a!r} and {b!r}, and can be taken out once; give it to one of them"
        )


def _token_set(subject: Subject, spot: Spot, owner: int) -> TokenSet:
    subject.module(spot.site)
    if spot.site.side == "weight":
        raise ValueError(
            f"spot {spot} is a weight, which no pass produces; give ':in' or ':out', or a Subspace of columns"
        )
    if set(spot.tokens) < set(TOKEN_KINDS) and not has_tokens(subject, spot.site):
        raise ValueError(
            f"spot {spot}: its rows are {subject.axis(spot.site)}es, not text tokens; give it without `tokens`, or name steps"
        )
    return TokenSet(owner, spot.tokens, spot.steps, spot.turn)


def _check_found_here(subject: Subject, part: Subspace, player: Player) -> None:
    if not part.rank:
        raise ValueError(f"player {player.name!r}: {part.site} has rank 0, so nothing can be taken out; leave it away")
    if part.base_hash and part.base_hash != subject.weight_hash():
        raise ValueError(
            f"player {player.name!r} was found in other weights than those of {subject.name!r} ({part.base_hash[:12]}... "
            "is their hash); find it again here"
        )


def _directions(site: Site, parts: Sequence[tuple[Subspace, int]]) -> DirectionReader:
    """All directions of one site; they are read from the same point, or each from its own where that moves nothing else."""
    means = [space.mean for space, _ in parts]
    first = means[0]
    if any(
        (m is None) != (first is None) or (m is not None and first is not None and not torch.equal(m, first))
        for m in means
    ):
        raise ValueError(
            f"directions at {site} are read from different points (`Subspace.mean`); attribute those of one point at a time"
        )
    return DirectionReader(
        site,
        torch.cat([space.basis.float() for space, _ in parts], 1),
        torch.cat([(space.basis if space.dual is None else space.dual).float() for space, _ in parts], 1),
        tuple(owner for space, owner in parts for _ in range(space.rank)),
        first,
    )
