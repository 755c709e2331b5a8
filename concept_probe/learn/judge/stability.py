"""Do autoencoders of other seeds find the same features? (Question and matching: arXiv 2501.16615)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor

from concept_probe.evaluation.bootstrap import bootstrap_mean_interval
from concept_probe.evaluation.intervals import wilson
from concept_probe.learn.judge.neighbours import nearest_rows
from concept_probe.learn.sae import Sae
from concept_probe.registry import check_choice
from concept_probe.types import Score, unit

Matching = Literal["nearest", "one_to_one"]
SHARED = 0.7
"""Cosine from which two features of two seeds count as one."""


@dataclass(frozen=True)
class Stability:
    """How well each feature of one autoencoder is found in another, for every ordered pair of them."""

    pairs: tuple[tuple[int, int], ...]
    """(i, j): the features of number i, looked for in number j."""
    cosines: tuple[Tensor, ...]
    """Per pair, the cosine of each feature of i with its match in j."""
    control: tuple[Tensor, ...]
    """Per pair, the same where j is a random dictionary of as many rows and the same second moments."""
    scores: tuple[Score, ...]
    """`stability`, the mean cosine, and `shared`, the share of at least 0.7; both over all pairs."""


@torch.no_grad()
def stability(
    saes: Sequence[Sae],
    *,
    matching: Matching = "nearest",
    alive: Sequence[Tensor] = (),
    draws: int = 2000,
    seed: int = 0,
) -> Stability:
    """Cosines between the decoder rows of autoencoders that differ in their seed, in both directions.

    `nearest` takes each feature's largest cosine, and several may share a match; `one_to_one` pairs features
    so that the sum of cosines is largest (Hungarian; needs scipy and all cosines in memory: 0.6 GB and
    minutes at 12,288 features). `alive` are masks (f,) of features to look at, one per autoencoder: a feature
    that never fires kept its random start. Intervals are over features, given these seeds.

    Raises ValueError for fewer than two autoencoders, or where site or width differ (naming both).
    """
    if len(saes) < 2:
        raise ValueError(f"{len(saes)} autoencoder was given; stability is between two or more")
    first = saes[0]
    for other in saes[1:]:
        if (other.site, other.d) != (first.site, first.d):
            ours, theirs = f"{first.site} (width {first.d})", f"{other.site} (width {other.d})"
            raise ValueError(f"autoencoders over {ours} and over {theirs} have no features in common")
    if alive and [len(mask) for mask in alive] != [sae.width for sae in saes]:
        raise ValueError(f"alive holds {[len(m) for m in alive]} features, the autoencoders {[s.width for s in saes]}")
    rows = [sae.W_dec.detach().float() for sae in saes]
    if alive:
        rows = [r[mask.to(r.device)] for r, mask in zip(rows, alive, strict=True)]
    pairs = tuple(permutations(range(len(saes)), 2))
    generator = torch.Generator().manual_seed(seed)
    chance = [_random_like(r, generator) for r in rows]
    cosines = tuple(_match(rows[i], rows[j], matching).cpu() for i, j in pairs)
    control = tuple(_match(rows[i], chance[j], matching).cpu() for i, j in pairs)
    return Stability(pairs, cosines, control, _scores(torch.cat(cosines), torch.cat(control), draws, seed))


def _scores(cosines: Tensor, control: Tensor, draws: int, seed: int) -> tuple[Score, ...]:
    n = len(cosines)
    both, by_chance = cosines >= SHARED, float((control >= SHARED).double().mean())
    mean, interval = float(cosines.double().mean()), bootstrap_mean_interval(cosines, draws, seed)
    shared = float(both.double().mean())
    return (
        Score("stability", mean, *interval, n, "mean cosine", "higher", float(control.double().mean())),
        Score("shared", shared, *wilson(shared, n), n, "fraction of features", "higher", by_chance),
    )


def _random_like(rows: Tensor, generator: torch.Generator) -> Tensor:
    """As many random rows whose second moments are those of `rows` (n, d): features crowd where the data does."""
    directions = unit(rows, dim=1)
    mix = torch.randn(len(rows), len(rows[0]), generator=generator).to(rows)
    moments = directions.mT.double() @ directions.double() / len(rows)
    values, vectors = torch.linalg.eigh(moments)
    return mix @ (vectors * values.clamp_min(0).sqrt()).mT.to(rows)


def _match(rows: Tensor, others: Tensor, matching: Matching) -> Tensor:
    check_choice(matching, Matching, "matching")
    if matching == "nearest":
        return nearest_rows(rows, others)[0]
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise ImportError("one_to_one matching needs scipy: pip install scipy, or matching='nearest'") from None
    cosines = unit(rows, dim=1) @ unit(others, dim=1).mT
    i, j = linear_sum_assignment(cosines.cpu().numpy(), maximize=True)
    # A feature that is left over, because the other has fewer, has no match.
    out = torch.zeros(len(rows), device=rows.device)
    out[torch.as_tensor(i)] = cosines[torch.as_tensor(i), torch.as_tensor(j)]
    return out
