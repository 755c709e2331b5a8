"""Ranked candidates for concept vectors: the first so many of them, and as many matched random ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from concept_probe.families import DiffusionSubject, Subject
from concept_probe.find.directions.projection import DIRECTION_KINDS
from concept_probe.find.removals import Removal, Zero
from concept_probe.find.vectors.columns import Effect, RankedColumns, matrix_site, without_columns
from concept_probe.find.vectors.ranking import rank_columns
from concept_probe.find.vectors.text_directions import TextDirections, project_texts, text_directions
from concept_probe.types import Concept, Score, Site, Subspace

CROSS_ROLES = ("cross_key_weight", "cross_value_weight")
COLUMN_RANKINGS: tuple[tuple[Effect, tuple[str, ...]], ...] = (
    ("gradient", ("eos", "pad")),
    ("norm", ("content", "subject", "eos", "pad")),
)
"""How columns are ranked: effect and kinds of token, tried in turn.

No ranking wins on every concept. In a causal encoder the tokens behind the prompt have read all of it, so
columns that act there are fewer and more the concept's own; where the reader looks at the words, they miss.
"""
COLUMN_COUNTS = (24, 48, 72, 96, 128, 192)
DIRECTION_COUNTS = (1, 2, 3, 6, 9)

RemovalContext = Callable[[], AbstractContextManager[object]]
"""Makes the context in which some candidates are removed."""


class Candidates(Protocol):
    """Concept vectors in order of merit."""

    @property
    def subject(self) -> Subject: ...
    @property
    def concept(self) -> Concept: ...

    @property
    def name(self) -> str:
        """How they were ranked, for a table."""
        ...

    @property
    def most(self) -> int:
        """How many can be taken so that as many others are left to compare with."""
        ...

    @property
    def counts(self) -> tuple[int, ...]:
        """How many are removed at a time in a search, unless it is told."""
        ...

    def take(self, count: int) -> tuple[Subspace, ...]:
        """The first `count`, as Subspaces whose `score` says why they rank first, not that they are causal."""
        ...

    def random(self, count: int, seed: int) -> tuple[Subspace, ...]:
        """`count` others that match them: the control."""
        ...

    def removal(self, count: int) -> RemovalContext:
        """The subject without the first `count`."""
        ...

    def random_removals(self, controls: int, most: int, seed: int) -> Callable[[int], list[RemovalContext]]:
        """A function of how many, at most `most`: the subject without matched random ones, `controls` draws of them."""
        ...


@dataclass(frozen=True)
class ColumnCandidates:
    """Columns of MLP output matrices; one Subspace of rank 1 per column, `site.item` its index."""

    subject: Subject
    concept: Concept
    ranked: RankedColumns
    counts: tuple[int, ...] = COLUMN_COUNTS
    how: Removal = Zero()
    """What stands in place of a column that is removed: a removal that looks at no other rows."""

    @property
    def name(self) -> str:
        return f"columns by {self.ranked.effect}"

    @property
    def most(self) -> int:
        return len(self.ranked.sites) // 2

    def take(self, count: int) -> tuple[Subspace, ...]:
        return self._columns(range(count))

    def random(self, count: int, seed: int) -> tuple[Subspace, ...]:
        """Columns of the same layers with like mean |coefficient| x norm."""
        return self._columns(self.ranked.matched(range(count), torch.Generator().manual_seed(seed)))

    def removal(self, count: int) -> RemovalContext:
        return self._zeroing(range(count))

    def random_removals(self, controls: int, most: int, seed: int) -> Callable[[int], list[RemovalContext]]:
        generator = torch.Generator().manual_seed(seed)
        return lambda count: [self._zeroing(self.ranked.matched(range(count), generator)) for _ in range(controls)]

    def _zeroing(self, chosen: Sequence[int]) -> RemovalContext:
        return lambda: without_columns(self.subject, self.ranked.by_layer(chosen), self.how)

    def _columns(self, chosen: Sequence[int]) -> tuple[Subspace, ...]:
        typical = float(self.ranked.scores.median())
        out, base_hash = [], self.subject.weight_hash()
        for i in chosen:
            site, score = self.ranked.sites[i], float(self.ranked.scores[i])
            column = self.subject.matrix(matrix_site(site)).detach()[:, site.item, None].float().clone()
            own = Score(f"contrast x effect ({self.ranked.effect})", score, score, score, 1, "", "higher", typical)
            space = Subspace(site, column, "parameter", own, self.concept.name, "mlp_value", scores=(own,))
            out.append(replace(space, base_hash=base_hash))
        return tuple(out)


@dataclass(frozen=True)
class DirectionCandidates:
    """Text directions at cross-attention's K/V matrices; one Subspace of rank `count` per matrix.

    `basis` (d_in, k) and `dual` are on the input side of the matrix: removing them is W <- W - (W basis) dualᵀ.
    """

    subject: Subject
    concept: Concept
    directions: TextDirections
    roles: Sequence[str] = CROSS_ROLES
    counts: tuple[int, ...] = DIRECTION_COUNTS

    @property
    def name(self) -> str:
        return "text directions"

    @property
    def most(self) -> int:
        return self.directions.basis.shape[1]

    @property
    def sites(self) -> list[Site]:
        """The matrices of `roles` that read the text's states; where a subject has none such, whatever reads them.

        Raises ValueError where no matrix does.
        """
        known = self.subject.roles()
        wanted = [site for role in self.roles if role in known for site in self.subject.sites(role)]
        readers = self.subject.state_readers() if isinstance(self.subject, DiffusionSubject) else tuple(wanted)
        chosen = [site for site in wanted if site in readers] or list(readers)
        if not chosen:
            raise ValueError(
                f"directions that {', '.join(self.roles)} read were asked for, and no single matrix of {self.subject.name!r} reads "
                "the text's states: its blocks read streams of their own; find directions at a site (difference_of_means, leace)"
            )
        return chosen

    def take(self, count: int) -> tuple[Subspace, ...]:
        return self._spaces(self.directions, count)

    def random(self, count: int, seed: int) -> tuple[Subspace, ...]:
        """Directions with the covariance of the other prompts' states, each as long as the one it stands for."""
        return self._spaces(random_directions(self.directions, count, seed), count)

    def removal(self, count: int) -> RemovalContext:
        return self._projecting(self.directions, count)

    def random_removals(self, controls: int, most: int, seed: int) -> Callable[[int], list[RemovalContext]]:
        drawn = [random_directions(self.directions, most, seed + i) for i in range(controls)]
        return lambda count: [self._projecting(directions, count) for directions in drawn]

    def _projecting(self, directions: TextDirections, count: int) -> RemovalContext:
        return lambda: project_texts(self.subject, directions.removal(count), self.sites)

    def _spaces(self, directions: TextDirections, count: int) -> tuple[Subspace, ...]:
        removal = directions.removal(count)
        dual, basis = removal.dual.float(), removal.basis.float()
        role_of = {site: role for role in self.subject.roles() for site in self.subject.sites(role)}
        length = float(torch.linalg.vector_norm(directions.basis[:, count - 1]))
        own = Score("length of the last direction", length, length, length, 1, "", "higher")
        plain = Subspace(self.sites[0], basis, "parameter", own, self.concept.name, dual=dual)
        base_hash = self.subject.weight_hash()
        return tuple(replace(plain, site=s, role=role_of[s], base_hash=base_hash) for s in self.sites)


def random_directions(directions: TextDirections, count: int, seed: int) -> TextDirections:
    """Gaussian directions with the covariance of the other prompts' states, each as long as the one it stands for."""
    generator = torch.Generator().manual_seed(seed)
    others: Tensor = directions.others
    mix = torch.randn(len(others), count, generator=generator, dtype=torch.float64).to(others)
    drawn = (others - others.mean(0)).mT @ mix
    lengths = torch.linalg.vector_norm(directions.basis[:, :count], dim=0)
    drawn = drawn / torch.linalg.vector_norm(drawn, dim=0).clamp_min(1e-30) * lengths
    return TextDirections(drawn, others, tuple(f"random {i}" for i in range(count)))


def vector_candidates(subject: Subject, concept: Concept, role: str | Sequence[str]) -> Iterator[Candidates]:
    """Candidates for `mlp_value` (columns, once per ranking of `COLUMN_RANKINGS`) or for one or both of `CROSS_ROLES`.

    Each is ranked when it is asked for. Raises ValueError for a role that holds no concept vectors.
    """
    roles = (role,) if isinstance(role, str) else tuple(role)
    if roles == ("mlp_value",):
        return (
            ColumnCandidates(subject, concept, rank_columns(subject, concept, effect=effect, kinds=kinds))
            for effect, kinds in COLUMN_RANKINGS
        )
    if roles and set(roles) <= set(CROSS_ROLES):
        directions = text_directions(subject, concept, kinds=DIRECTION_KINDS)
        return iter([DirectionCandidates(subject, concept, directions, roles)])
    raise ValueError(
        f"role {role!r} holds no concept vectors: ask for 'mlp_value', or for one or both of {', '.join(CROSS_ROLES)}"
    )
