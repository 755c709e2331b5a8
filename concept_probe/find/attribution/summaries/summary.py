"""What a summary of a game is: which coalitions it asks for, and how players share what they are worth."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.arguments import Count, SeedNumber, check_arguments

MOST_EXACT = 8
"""Players up to which every coalition is asked for: 256 of them."""


@dataclass(frozen=True, eq=False)
class Design:
    """Which coalitions are asked for."""

    masks: Float[Tensor, "c m"]
    """float64: how much of each player stays, 0..1; no two rows alike."""
    rows: Tensor
    """Places in `masks`, long, in the shape in which the summary reads values."""
    replicates: int
    """How many independent draws the coalitions are made of; 1 where nothing was drawn."""
    orders: Tensor | None = None
    """Of permutations, the players in the order in which they come in."""


class Summary(abc.ABC):
    """From values v(S) of coalitions S of m players to one number a player.

    v(S) is what the model does with the players outside S taken out. `solve` reads the values of many games at once, one
    in each column: the bootstrap resamples prompts by making games, and draws by weighing them.
    """

    name: ClassVar[str]
    efficient: ClassVar[bool] = False
    """Whether the numbers add up to v(all) - v(none)."""
    signed: ClassVar[bool] = True
    """Whether a player that works against the behaviour has a negative number."""
    of: ClassVar[Literal["values", "gradients"]] = "values"
    """What of the game it reads; gradients are those in how much of each player stays."""

    @abc.abstractmethod
    def design(self, players: int) -> Design: ...

    @abc.abstractmethod
    def solve(
        self, design: Design, values: Float[Tensor, "c *m g"], weights: Float[Tensor, "r g"]
    ) -> Float[Tensor, "m g"]:
        """`values` of each coalition in g games (of `gradients` one for each player), `weights` of the replicates in each,
        which add up to 1."""

    def count(self, players: int) -> int:
        """How many coalitions are asked for."""
        return len(self.design(players).masks)


@dataclass(frozen=True)
class Drawn(Summary):
    """A summary whose coalitions are drawn where there are too many of them."""

    samples: Count = 16
    """How many draws; each is a pair or a walk of coalitions, as the summary says."""
    seed: SeedNumber = 0
    """Of the draws."""
    exact: bool = True
    """Whether every coalition of up to `MOST_EXACT` players is asked for, and nothing drawn."""

    def __post_init__(self) -> None:
        check_arguments(self, self.name)

    def enumerates(self, players: int) -> bool:
        return self.exact and players <= MOST_EXACT

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def distinct(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (..., m) without repetitions, (c, m), and the place of each among them (...)."""
    flat = masks.reshape(-1, masks.shape[-1]).double()
    found, place = torch.unique(flat, dim=0, return_inverse=True)
    return found, place.reshape(masks.shape[:-1])


def every_coalition(players: int) -> Tensor:
    """(2^m, m): row k holds the bits of k, the first player's first."""
    return ((torch.arange(2**players)[:, None] >> torch.arange(players)) & 1).double()


def joinings(players: int) -> Tensor:
    """(m, 2^(m-1), 2): for each player, the places in `every_coalition` of each coalition with it, and without it."""
    numbers = torch.arange(2**players)
    bits = 2 ** torch.arange(players)
    without = torch.stack([numbers[(numbers & bit) == 0] for bit in bits])
    return torch.stack([without + bits[:, None], without], -1)


def flips(base: Tensor) -> Tensor:
    """base (..., m) -> (..., m, 2, m): for each player, the coalition with it and without it."""
    m = base.shape[-1]
    eye = torch.eye(m, dtype=base.dtype).expand(*base.shape[:-1], m, m)
    spread = base[..., None, :].expand_as(eye)
    return torch.stack([torch.where(eye == 1, 1.0, spread), torch.where(eye == 1, 0.0, spread)], -2)
