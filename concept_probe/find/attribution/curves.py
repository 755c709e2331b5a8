"""What is left of a behaviour when the best players go one after the other, and what comes back with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.evaluation.intervals import percentiles
from concept_probe.find.attribution.game import RemovalGame
from concept_probe.find.attribution.scoring import RESAMPLES, groups_of, resampled
from concept_probe.types import Curve, Score, evenly_with_ends


@dataclass(frozen=True)
class OrderedCurve:
    """A curve and its area: the mean of it over how many players went, from none to all."""

    curve: Curve
    area: Score


def counts_of(players: int, points: int) -> list[int]:
    """How many players go at each point, from none to all."""
    return evenly_with_ends(range(players + 1), max(points, 2))


def random_orders(players: int, count: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(players, generator=generator).tolist() for _ in range(count)]


def prefix(order: Sequence[int], count: int, *, back: bool, players: int) -> Tensor:
    """The coalition (m,) without the first `count` of an order, or, put `back`, with them alone."""
    keep = torch.full((players,), 0.0 if back else 1.0, dtype=torch.float64)
    keep[list(order[:count])] = 1.0 if back else 0.0
    return keep


def ordered_curve(
    game: RemovalGame, order: Sequence[int], random: Sequence[Sequence[int]], counts: Sequence[int], *, back: bool,
    done: Callable[[int], None] = lambda n: None,
) -> OrderedCurve:  # fmt: skip
    """The behaviour along an order of the players, beside its mean along `random` ones, and intervals over prompts.

    With `back` all players are out and come back, else all are there and go.
    """

    def values(along: Sequence[int]) -> Tensor:
        out = []
        for count in counts:
            out.append(game.values(prefix(along, count, back=back, players=game.size)))
            done(1)
        return torch.stack(out)

    own = values(order)
    control = torch.stack([values(along) for along in random]).mean(0) if random else None
    groups = groups_of(game.setting.queries)
    weights = resampled(groups, RESAMPLES, 0)
    ends = [percentiles(line) for line in own @ weights]
    name = "insertion" if back else "deletion"
    curve = Curve(
        name, "players put back" if back else "players taken out", game.behaviour.name,
        tuple(map(float, counts)), tuple(own.mean(1).tolist()), tuple(a for a, _ in ends), tuple(b for _, b in ends),
        () if control is None else tuple(control.mean(1).tolist()), "" if control is None else "in random orders",
    )  # fmt: skip
    width = trapezoid(counts)
    low, high = percentiles(width @ (own @ weights))
    area = Score(
        f"area under {name}", float(width @ own.mean(1)), low, high, int(groups.max()) + 1, game.behaviour.unit,
        "higher" if back else "lower", None if control is None else float(width @ control.mean(1)),
    )  # fmt: skip
    return OrderedCurve(curve, area)


def trapezoid(counts: Sequence[int]) -> Tensor:
    """(points,) float64: how much each point counts for the mean over all numbers of players, by the trapezoidal rule."""
    x = torch.tensor(list(counts), dtype=torch.float64)
    gaps = (x[1:] - x[:-1]) / (x[-1] - x[0])
    out = torch.zeros_like(x)
    out[1:] += gaps / 2
    out[:-1] += gaps / 2
    return out
