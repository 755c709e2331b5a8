"""Linear probes: how well a concept can be read from a site, on prompts the probe has not seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from concept_probe.evaluation.auroc import auroc, resample_within_labels
from concept_probe.find.directions.projection import DIRECTION_KINDS
from concept_probe.find.layout import has_tokens
from concept_probe.find.rows import ConceptRows, RowQuery, concept_rows
from concept_probe.types import JUDGED_KINDS, Concept, Score, Site, Split

if TYPE_CHECKING:
    from concept_probe.families import Subject

PROBE_ROWS = RowQuery(DIRECTION_KINDS, JUDGED_KINDS)


@dataclass(frozen=True)
class LinearProbe:
    """A logistic regression: its logit is (x @ weight) + bias."""

    weight: Tensor
    """(d,) float64, in the units of the activations"""
    bias: Tensor
    loss: float
    """Mean log-loss with the penalty, at the end of the fit."""

    def __call__(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        return x.to(self.weight) @ self.weight + self.bias


def fit_probe(
    x: Float[Tensor, "n d"], labels: Bool[Tensor, "n"], *, penalty: float = 1e-2, iterations: int = 100
) -> LinearProbe:
    """Logistic regression on standardised columns, both labels weighted alike, by L-BFGS in float64.

    `penalty` is the factor on |w|²/2 for standardised columns. Raises ValueError where a label is missing.
    """
    if labels.all() or not labels.any():
        raise ValueError(f"a probe needs both labels; found {int(labels.sum())} of {len(labels)} rows of the concept")
    x = x.detach().double()
    mean, scale = x.mean(0), x.std(0).clamp_min(1e-8)
    rows = (x - mean) / scale
    y = labels.to(rows)
    balance = torch.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum()).to(rows)
    with torch.enable_grad():
        parameters = torch.zeros(x.shape[1] + 1, dtype=rows.dtype, device=rows.device, requires_grad=True)
        solver = torch.optim.LBFGS(
            [parameters],
            max_iter=iterations,
            tolerance_grad=1e-9,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            solver.zero_grad()
            logits = rows @ parameters[:-1] + parameters[-1]
            losses = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
            loss = (balance * losses).sum() + penalty * parameters[:-1].square().sum() / 2
            loss.backward()
            return loss

        solver.step(closure)  # pyright: ignore[reportArgumentType]
        loss = float(closure().detach())
    found = parameters.detach()
    weight = found[:-1] / scale
    return LinearProbe(weight, found[-1] - mean @ weight, loss)


def _per_prompt(readings: Tensor, rows: ConceptRows) -> tuple[Tensor, Tensor]:
    """Mean reading of each prompt (p,) and its label (p,)."""
    ids, where = rows.prompt.unique(return_inverse=True)
    mean = readings.new_zeros(len(ids)).scatter_reduce(0, where, readings, "mean", include_self=False)
    labels = torch.zeros(len(ids), dtype=torch.bool, device=where.device)
    labels[where] = rows.concept
    return mean, labels


def probe_rows(
    fit: ConceptRows, held: ConceptRows, *, penalty: float = 1e-2, shuffles: int = 5, seed: int = 0
) -> Score:
    """AUROC on the prompts of `held` of a probe fitted on `fit`; readings are averaged per prompt.

    `control` is the mean AUROC of probes fitted on labels shuffled among the prompts of `fit`. The
    interval is a bootstrap over held-out prompts.
    """
    readings, labels = _per_prompt(fit_probe(fit.x, fit.concept, penalty=penalty)(held.x), held)
    generator = torch.Generator().manual_seed(seed)
    ids, where = fit.prompt.unique(return_inverse=True)
    own = torch.zeros(len(ids), dtype=torch.bool)
    own[where] = fit.concept
    null = []
    for _ in range(shuffles):
        mixed = own[torch.randperm(len(own), generator=generator)][where]
        null.append(float(auroc(_per_prompt(fit_probe(fit.x, mixed, penalty=penalty)(held.x), held)[0], labels)))
    draws = [resample_within_labels(labels, generator) for _ in range(500)]
    drawn = torch.stack([auroc(readings[rows], labels[rows]) for rows in draws])
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Score(
        "AUROC of a linear probe", float(auroc(readings, labels)), low, high, len(labels), "", "higher",
        sum(null) / len(null) if null else None,
    )  # fmt: skip


def probe_auroc(
    subject: Subject,
    concept: Concept,
    site: Site,
    *,
    split: Split = "select",
    which: RowQuery = PROBE_ROWS,
    penalty: float = 1e-2,
    seed: int = 0,
) -> Score:
    """How well the concept can be read at `site`: a probe fitted on the fit split, judged on `split`.

    Call it with an erasure on to measure what is left. Kinds of token count at sites of text tokens. Raises ValueError
    for split `fit`, where any probe looks good.
    """
    if split == "fit":
        raise ValueError("a probe is not judged on the split it was fitted on: split is 'select' or 'test'")
    which = which if has_tokens(subject, site) else replace(which, kinds=())
    fit, held = (concept_rows(subject, concept, [site], part, which)[site] for part in ("fit", split))
    return probe_rows(fit, held, penalty=penalty, seed=seed)
