"""How often each feature fires: a few that fire everywhere and many that never do are both bad signs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.evaluation.bootstrap import bootstrap_counts
from concept_probe.evaluation.intervals import ratio_percentiles
from concept_probe.learn.judge.evaluate import FEATURES, Sums, sums, untrained
from concept_probe.learn.judge.heldout import HeldOut, hold
from concept_probe.learn.sae import Sae
from concept_probe.types import Score

DENSE, RARE = 0.1, 1e-4
"""A feature that fires on more than a tenth of the rows says little about any of them; one that fires on fewer than
one in 10,000 was hardly seen."""


@dataclass(frozen=True)
class Density:
    """Rows on which each of f features fires, of an autoencoder and of an untrained one of the same shape."""

    fired: Tensor
    """(f,) long"""
    control: Tensor
    """(f,) long: the untrained autoencoder's."""
    rows: int
    scores: tuple[Score, ...]
    """`dense` and `rare`, shares of features with intervals over prompts."""

    @property
    def frequency(self) -> Tensor:
        """(f,) float64: share of rows on which a feature fires."""
        return self.fired.double() / self.rows

    @property
    def log10(self) -> Tensor:
        """(f,) float64: the logarithm of `frequency`; minus infinity for a feature that never fires."""
        return self.frequency.log10()


@torch.no_grad()
def feature_density(sae: Sae, activations: HeldOut, *, draws: int = 2000, seed: int = 0) -> Density:
    """How often each feature fires on held-out rows, beside an untrained autoencoder of the same width and k.

    - `dense`: share of features that fire on more than a tenth of the rows;
    - `rare`: share that fire on fewer than one row in 10,000. On fewer rows than that it counts those that never
      fire. A sample of prompts can only lose occasions to fire, so that its interval is mirrored.

    Raises what `evaluate_sae` raises.
    """
    held = hold(sae, activations, seed=seed)
    here = sums(sae, held)
    control = sums(untrained(sae, round(here.l0), seed), held)
    counts = bootstrap_counts(held.groups, draws, seed)
    drawn = torch.zeros(2, draws, dtype=torch.float64)
    rows = (counts @ here.rows)[:, None]
    for part in here.fired.split(FEATURES, dim=1):
        frequency = (counts @ part.double()) / rows
        drawn += torch.stack([(frequency > DENSE).double().sum(1), (frequency < RARE).double().sum(1)])
    drawn /= sae.width
    (dense, rare), (dense_control, rare_control) = _shares(here), _shares(control)
    low, high = ratio_percentiles(drawn[1])
    mirrored = max(0.0, 2 * rare - high), max(rare, 2 * rare - low)
    n, share = held.prompts, "fraction of features"
    scores = (
        Score("dense", dense, *ratio_percentiles(drawn[0]), n, share, "lower", dense_control),
        Score("rare", rare, *mirrored, n, share, "lower", rare_control),
    )
    return Density(here.fired.sum(0), control.fired.sum(0), held.rows, scores)


def _shares(measured: Sums) -> tuple[float, float]:
    frequency = measured.fired.sum(0).double() / measured.rows.sum()
    return float((frequency > DENSE).double().mean()), float((frequency < RARE).double().mean())
