"""Numbers that are looked at more than once while they grow: how much error each look may have.

Whoever looks often enough finds an interval that misses. The number of looks is fixed beforehand, and the error that is
allowed in all is spent on them: by the share t of the sample, error · t³ is spent (Kim and DeMets 1987, ρ = 3). What a look
may miss by is what is newly spent at it, so the sum over looks is the whole, however the looks depend on one another. Most
is left for the last: what is clear early is clear at a small error too, and what is close needs the whole sample.
"""

from __future__ import annotations

import math

from concept_probe.evaluation.intervals import USUAL_ERROR

POWER = 3
DRAWS_BEYOND = 5
"""Draws of a bootstrap, at least, beyond each end of an interval."""


def errors_of_looks(looks: int, error: float = USUAL_ERROR) -> tuple[float, ...]:
    """What the interval of each of `looks` looks at equal parts of a sample may miss by; together they are `error`.

    >>> [round(e, 4) for e in errors_of_looks(3)]
    [0.0019, 0.013, 0.0352]

    Raises ValueError for less than one look.
    """
    if looks < 1:
        raise ValueError(f"looks is {looks}; it is a whole number from 1 on")
    if looks == 1:
        return (error,)
    spent = [error * (k / looks) ** POWER for k in range(looks + 1)]
    return tuple(spent[k + 1] - spent[k] for k in range(looks))


def draws_for(error: float) -> int:
    """How many draws an interval that may miss by `error` needs, so that `DRAWS_BEYOND` lie beyond each of its ends."""
    return math.ceil(2 * DRAWS_BEYOND / error)


def fewest_without_a_hit(error: float, edge: float) -> int:
    """How many prompts, none of which shows the concept, are the fewest that a rate is called below `edge` on, by an interval
    that misses by `error`: the smallest n with 1 − (error / 2)^(1/n) < edge (Clopper and Pearson).

    >>> fewest_without_a_hit(0.05, 0.25), fewest_without_a_hit(errors_of_looks(3)[-1], 0.25)
    (13, 15)

    Raises ValueError for an edge that is not between 0 and 1.
    """
    if not 0 < edge < 1:
        raise ValueError(f"edge is {edge}; it is a rate between 0 and 1")
    return math.floor(math.log(error / 2) / math.log(1 - edge)) + 1
