"""Matched random players: what a score would be for a part that has nothing to do with the concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.families.text.kinds import NAMED_KINDS
from concept_probe.find.attribution.players import Player, PlayerPart, Spot
from concept_probe.find.directions.projection import orthonormal
from concept_probe.find.layout import has_tokens
from concept_probe.find.rows import RowQuery, concept_rows
from concept_probe.find.vectors.columns import RankedColumns, hidden_site, matrix_site
from concept_probe.types import Concept, Sampling, Site, SparseCoder, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

POOL = 4
"""Of how many that are most alike in activity one is drawn."""


@dataclass(frozen=True, eq=False)
class MatchedPlayers:
    """Draws for each part another that is like it: the same number, at the same site, as active or as large.

    Of columns, one of the same matrix with like mean |coefficient| x length; of features, one of the same autoencoder that fires
    about as much; of directions, as many random ones with the spread of the site's rows, where it has a role; of spots, the same spot
    with what is taken out turned at random. Raises ValueError where a matrix or an autoencoder has too few others.
    """

    subject: Subject
    concept: Concept
    sampling: Sampling
    seed: int = 0
    most: int = 16
    """Prompts of each list that activity is measured on, of the fit split."""

    def players(self, players: Sequence[Player]) -> tuple[Player, ...]:
        generator = torch.Generator().manual_seed(self.seed)
        parts: list[PlayerPart] = [part for player in players for part in player.parts]
        others: dict[int, PlayerPart] = {}
        for site, chosen in _by_matrix(parts).items():
            others |= self._columns(site, [(i, parts[i]) for i in chosen], generator)
        for chosen in _by_codec(parts).values():
            others |= self._features([(i, parts[i]) for i in chosen], generator)
        for i, part in enumerate(parts):
            if isinstance(part, Spot):
                others[i] = replace(part, turn=int(torch.randint(2**31, (1,), generator=generator)))
            elif i not in others:
                others[i] = self._directions(part, generator)
        it = iter(range(len(parts)))
        return tuple(Player(f"like {player.name}", tuple(others[next(it)] for _ in player.parts)) for player in players)

    def _rows(self, site: Site) -> Tensor:
        """(n, d) of the concept's and of other prompts."""
        kinds = NAMED_KINDS if has_tokens(self.subject, site) else ()
        which = RowQuery(kinds, limit=self.most, sampling=self.sampling)
        return concept_rows(self.subject, self.concept, [site], "fit", which)[site].x

    def _columns(
        self, site: Site, chosen: list[tuple[int, PlayerPart]], generator: torch.Generator
    ) -> dict[int, PlayerPart]:
        matrix = self.subject.matrix(site).detach().float().cpu()
        own = [part.site.item or 0 for _, part in chosen]
        if 2 * len(own) > matrix.shape[1]:
            raise ValueError(
                f"{len(own)} of the {matrix.shape[1]} columns of {site} are players, so too few are left to match them with; give "
                "fewer, or ask without controls"
            )
        load = self._rows(hidden_site(self.subject, site)).abs().mean(0).cpu() * torch.linalg.vector_norm(matrix, dim=0)
        sites = tuple(replace(site, item=j) for j in range(matrix.shape[1]))
        ranked = RankedColumns(sites, torch.zeros(len(sites)), load, "norm")
        out: dict[int, PlayerPart] = {}
        for (i, part), j in zip(chosen, ranked.matched(own, generator, pool=POOL), strict=True):
            assert isinstance(part, Subspace)
            out[i] = replace(part, site=sites[j], basis=matrix[:, j, None].clone())
        return out

    def _features(self, chosen: list[tuple[int, PlayerPart]], generator: torch.Generator) -> dict[int, PlayerPart]:
        spaces = [part for _, part in chosen if isinstance(part, Subspace)]
        codec = spaces[0].codec
        assert codec is not None
        firing = mean_of_codes(codec, self._rows(codec.site))
        taken = {j for space in spaces for j in space.features}
        out: dict[int, PlayerPart] = {}
        for i, part in chosen:
            assert isinstance(part, Subspace)
            drawn = []
            for j in part.features:
                free = [k for k in range(codec.width) if k not in taken]
                if not free:
                    raise ValueError(
                        f"all {codec.width} features of the autoencoder over {codec.site} are players or stand for one, so none is "
                        "left to match them with; give fewer, or ask without controls"
                    )
                near = (firing[free] - firing[j]).abs().topk(min(POOL, len(free)), largest=False).indices
                pick = free[int(near[int(torch.randint(len(near), (1,), generator=generator))])]
                taken.add(pick)
                drawn.append(pick)
            out[i] = replace(part, features=tuple(drawn), basis=codec.decoder[drawn].detach().mT.contiguous())
        return out

    def _directions(self, part: Subspace, generator: torch.Generator) -> Subspace:
        site = Site(part.site.component, part.site.path, "in") if part.space == "parameter" else part.site
        rows = self._readable(part, site)
        mix = torch.randn(len(rows), part.rank, generator=generator)
        drawn = orthonormal((rows - rows.mean(0)).mT @ mix)
        if drawn.shape[1] < part.rank:
            drawn = orthonormal(torch.randn(part.basis.shape, generator=generator))
        return replace(part, basis=drawn.to(part.basis), dual=None)

    def _readable(self, part: Subspace, site: Site) -> Tensor:
        """(n, d) at a site that has a role, else of no structure: random directions of equal spread."""
        if any(site in self.subject.sites(role) for role in self.subject.roles()):
            return self._rows(site).float().cpu()
        return torch.eye(part.basis.shape[0])


def mean_of_codes(codec: SparseCoder, rows: Tensor) -> Tensor:
    """(f,): mean value of every feature over rows (n, d)."""
    total = torch.zeros(codec.width, dtype=torch.float64)
    with torch.no_grad():
        for part in rows.split(65536):
            codes = codec.encode(part.to(codec.decoder.device))
            total.index_add_(0, codes.indices.flatten().cpu(), codes.values.flatten().double().cpu())
    return total / max(len(rows), 1)


def _by_matrix(parts: Sequence[PlayerPart]) -> dict[Site, list[int]]:
    out: dict[Site, list[int]] = {}
    for i, part in enumerate(parts):
        if (
            isinstance(part, Subspace)
            and part.codec is None
            and part.space == "parameter"
            and part.site.item is not None
        ):
            out.setdefault(matrix_site(part.site), []).append(i)
    return out


def _by_codec(parts: Sequence[PlayerPart]) -> dict[int, list[int]]:
    out: dict[int, list[int]] = {}
    for i, part in enumerate(parts):
        if isinstance(part, Subspace) and part.codec is not None:
            out.setdefault(id(part.codec), []).append(i)
    return out
