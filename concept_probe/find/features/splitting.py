"""Into how many features a concept is split: how many of them it takes to probe it as well as more of them do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.evaluation.bootstrap import bootstrap_counts
from concept_probe.find.directions.probes import fit_probe
from concept_probe.find.readout import Readout
from concept_probe.types import Curve, Score, SparseCoder

GAIN = 0.03
"""What a further feature must add to F1 to count, as in arXiv 2409.14507."""
RANDOM_SETS = 10
"""Random sets of features that make the control."""


@dataclass(frozen=True)
class Splitting:
    """k-sparse probes of one concept, k = 1, 2, ..."""

    features: tuple[int, ...]
    """In the order in which they were taken."""
    curve: Curve
    """F1 on held-out prompts against k, with intervals; `control` takes random features that fire too."""
    needed: Score
    """The smallest k whose F1 is within 0.03 of the best; `control` is what random features need, which is
    infinite where none of the sizes gets there."""

    @property
    def main(self) -> tuple[int, ...]:
        """The features that are needed."""
        return self.features[: int(self.needed.value)]


@torch.no_grad()
def splitting(
    codec: SparseCoder, fit: Readout, test: Readout, *, most: int = 10, draws: int = 1000, seed: int = 0
) -> Splitting:
    """Probe the concept with its best k features for k up to `most` (k-sparse probing, arXiv 2305.01610).

    Features are taken on `fit` one at a time: the one that fires on the concept and explains most of what the
    ones before left (orthogonal matching pursuit on standardised codes). A logistic regression on the
    first k is judged by F1 on `test`. Intervals are over test prompts.

    Raises ValueError where no feature fires more on the concept than on the rest, or a label is missing.
    """
    for name, part in (("fit", fit), ("test", test)):
        if part.concept.all() or not part.concept.any():
            raise ValueError(f"{name} holds {int(part.concept.sum())} of {part.n} rows of the concept; both are needed")
    codes = codec.encode(fit.x).dense(codec.width).double().cpu()
    held = codec.encode(test.x).dense(codec.width).double().cpu()
    features = _pursue(codes, fit.concept.cpu(), most)
    if not features:
        raise ValueError(f"no feature over {codec.site} fires more on the concept than on the other prompts")
    labels = test.concept.cpu()
    calls = torch.stack([_calls(codes, held, fit.concept.cpu(), features[:k]) for k in range(1, len(features) + 1)])
    f1 = _f1(calls, labels, torch.ones(1, test.n, dtype=torch.float64))[:, 0]
    counts = bootstrap_counts(test.n, draws, seed)
    drawn = _f1(calls, labels, counts)
    bounds = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=1)
    chance = _chance(codes, held, fit.concept.cpu(), labels, features, seed)
    needed = _needed(f1[:, None])
    spread = _needed(drawn).double().quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    reached = (chance >= f1.max() - GAIN).nonzero()
    random = float(reached[0, 0] + 1) if len(reached) else math.inf
    sizes = tuple(float(k) for k in range(1, len(features) + 1))
    values, low, high, control = (tuple(t.tolist()) for t in (f1, bounds[0], bounds[1], chance))
    curve = Curve("splitting", "features in the probe", "F1", sizes, values, low, high, control, "random features")
    score = Score("features needed", float(needed), spread[0], spread[1], test.n, "features", "lower", random)
    return Splitting(tuple(features), curve, score)


def _pursue(codes: Tensor, labels: Tensor, most: int) -> list[int]:
    """Columns of codes (p, f) that explain the labels (p,), best first; each raises what is left of them."""
    spread = codes.std(0)
    standard = torch.where(spread > 0, (codes - codes.mean(0)) / spread.clamp_min(1e-12), 0)
    goal = labels.double() - labels.double().mean()
    chosen: list[int] = []
    left = goal
    for _ in range(min(most, int((spread > 0).sum()))):
        gains = left @ standard
        gains[chosen] = 0
        best = int(gains.argmax())
        if gains[best] <= 1e-9 * len(labels):
            break
        chosen.append(best)
        basis = standard[:, chosen]
        left = goal - basis @ torch.linalg.lstsq(basis, goal[:, None], driver="gelsd").solution[:, 0]
    return chosen


def _calls(codes: Tensor, held: Tensor, labels: Tensor, features: Sequence[int]) -> Tensor:
    """Which held-out prompts (p,) a probe on these features calls the concept's."""
    which = list(features)
    return fit_probe(codes[:, which], labels)(held[:, which]) > 0


def _f1(calls: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """calls (k, p), labels (p,), counts (draws, p) -> F1 (k, draws); 0 where nothing is called and nothing is there."""
    right = (calls & labels).double() @ counts.mT
    wrong = (calls ^ labels).double() @ counts.mT
    return 2 * right / (2 * right + wrong).clamp_min(1e-12)


def _needed(f1: Tensor) -> Tensor:
    """F1 (k, draws) -> the smallest size (draws,) within GAIN of the best."""
    return (f1 >= f1.amax(0) - GAIN).double().argmax(0) + 1


def _chance(codes: Tensor, held: Tensor, concept: Tensor, labels: Tensor, features: Sequence[int], seed: int) -> Tensor:
    """Mean F1 (k,) of probes on as many random features that fire on some of the prompts and were not taken."""
    pool = (codes > 0).any(0)
    pool[list(features)] = False
    others = pool.nonzero()[:, 0]
    generator = torch.Generator().manual_seed(seed)
    once = torch.ones(1, len(labels), dtype=torch.float64)
    total = torch.zeros(len(features), dtype=torch.float64)
    for _ in range(RANDOM_SETS):
        drawn = others[torch.randperm(len(others), generator=generator)][: len(features)].tolist()
        calls = [_calls(codes, held, concept, drawn[: k + 1]) for k in range(len(features))]
        total += _f1(torch.stack(calls), labels, once)[:, 0]
    return total / RANDOM_SETS
