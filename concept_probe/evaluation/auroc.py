"""Selectivity and intervals: AUROC by ranks, bootstrap over prompts, labels shuffled for control."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from concept_probe.types import Score


def auroc(values: Float[Tensor, "n *m"], labels: Bool[Tensor, "n"]) -> Tensor:
    """Chance that a row with label True has the larger value than one with False; ties count a half.

    One number per column of `values`. Raises ValueError where one of the labels is missing.
    """
    positive, negative = values[labels], values[~labels]
    if not len(positive) or not len(negative):
        raise ValueError(
            f"AUROC needs both labels; found {len(positive)} rows with True and {len(negative)} with False"
        )
    flat = values.reshape(len(values), -1).double()
    ranks = _mid_ranks(flat)
    n1, n0 = len(positive), len(negative)
    area = (ranks[labels].sum(0) - n1 * (n1 + 1) / 2) / (n1 * n0)
    return area.reshape(values.shape[1:])


def _mid_ranks(x: Tensor) -> Tensor:
    """Ranks 1..n per column of x (n, m), ties sharing their mean rank."""
    ordered = x.sort(dim=0).values.mT.contiguous()
    columns = x.mT.contiguous()
    first = torch.searchsorted(ordered, columns, right=False)
    after = torch.searchsorted(ordered, columns, right=True)
    return ((first + after + 1).double() / 2).mT


def resample_within_labels(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Rows drawn with replacement within each label."""
    parts = []
    for group in (labels.nonzero()[:, 0], (~labels).nonzero()[:, 0]):
        parts.append(group[torch.randint(len(group), (len(group),), generator=generator)])
    return torch.cat(parts)


def auroc_scores(
    values: Float[Tensor, "n m"],
    labels: Bool[Tensor, "n"],
    name: str = "AUROC",
    *,
    resamples: int = 200,
    shuffles: int = 100,
    seed: int = 0,
) -> tuple[Score, ...]:
    """AUROC of each column with a 95 % bootstrap interval; `control` is what 97.5 % of shuffled labels stay under."""
    values, labels = values.cpu(), labels.cpu()
    generator = torch.Generator().manual_seed(seed)
    value = auroc(values, labels)
    drawn = []
    for _ in range(resamples):
        rows = resample_within_labels(labels, generator)
        drawn.append(auroc(values[rows], labels[rows]))
    null = [auroc(values, labels[torch.randperm(len(labels), generator=generator)]) for _ in range(shuffles)]
    low, high = torch.stack(drawn).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    control = torch.stack(null).quantile(0.975, dim=0)
    return tuple(
        Score(name, float(value[i]), float(low[i]), float(high[i]), len(labels), "", "higher", float(control[i]))
        for i in range(values.shape[1])
    )
