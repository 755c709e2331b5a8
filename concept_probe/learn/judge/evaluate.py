"""How good an autoencoder is on rows and prompts that it was not trained on, each number beside its control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.evaluation.bootstrap import bootstrap_counts
from concept_probe.evaluation.intervals import ratio_percentiles
from concept_probe.learn.belongs import check_belongs
from concept_probe.learn.judge.heldout import HeldOut, HeldOutRows, hold
from concept_probe.learn.sae import Sae, TopK
from concept_probe.learn.train.seen_prompts import prompt_text
from concept_probe.types import Prompt, Query, Sampling, Score, unit

if TYPE_CHECKING:
    from concept_probe.families.subject import Subject

FEATURES = 2048
"""Features whose bootstrap samples are in memory at once."""


@dataclass(frozen=True)
class Sums:
    """What an autoencoder does, summed over the rows of each of g groups of prompts."""

    rows: Tensor
    """(g,) float64"""
    squared_error: Tensor
    variance: Tensor
    """(g,) squared distance from the mean of all rows."""
    fired: Tensor
    """(g, f) int32: rows on which a feature fired."""

    @property
    def fvu(self) -> float:
        return float(self.squared_error.sum() / self.variance.sum())

    @property
    def l0(self) -> float:
        return float(self.fired.sum() / self.rows.sum())

    @property
    def dead(self) -> float:
        return float((self.fired.sum(0) == 0).double().mean())


@torch.no_grad()
def evaluate_sae(
    sae: Sae,
    activations: HeldOut,
    *,
    subject: Subject | None = None,
    queries: Sequence[Prompt] | Sequence[Query] = (),
    sampling: Sampling = Sampling(),
    draws: int = 2000,
    seed: int = 0,
) -> tuple[Score, ...]:
    """FVU, L0 and dead features on held-out rows; with a subject and queries, the downstream error too.

    - `fvu`: |x - x̂|² over |x - mean|², 1 is as bad as the mean.
    - `l0`: features that fire per row.
    - `dead`: share of features that fire on none of the rows; more rows can only lower it.
    - `downstream`: squared change of the subject's output when x̂ replaces x, over the change when the mean of
      `activations` replaces it: 0 loses nothing, 1 (its control) is as bad as the mean. Prompts are judged by the
      text states that generation reads, queries by the generated pictures. Only what `activations` has rows
      of is replaced: its token kinds, guidance branches and steps.
    - `kl`, `ce`: of language models given prompts, the same loss in nats per token (see `next_token_scores`).

    The control of the first three is an untrained autoencoder of the same width, k, bias and scale.
    Intervals are percentiles of `draws` bootstrap samples of prompts. Rows are read shard by shard, twice:
    memory grows neither with their number nor with that of the prompts.

    Raises ValueError where site or width differ (naming both), for rows of another model, where fewer than two prompts have rows, or
    where a prompt was in training; FloatingPointError for a row that is not finite.
    """
    if subject is not None:
        check_belongs(sae, subject)
    held = hold(sae, activations, queries, seed=seed)
    here = sums(sae, held)
    control = sums(untrained(sae, round(here.l0), seed), held)
    n = held.prompts
    counts = bootstrap_counts(held.groups, draws, seed)
    fvu = ratio_percentiles((counts @ here.squared_error) / (counts @ here.variance))
    l0 = ratio_percentiles((counts @ here.fired.sum(1).double()) / (counts @ here.rows))
    silent = torch.zeros(draws, dtype=torch.float64)
    for part in here.fired.split(FEATURES, dim=1):
        silent += ((counts @ (part > 0).double()) == 0).double().sum(1)
    fewest = max(0.0, 2 * here.dead - ratio_percentiles(silent / sae.width)[1])
    scores = [
        Score("fvu", here.fvu, *fvu, n, "fraction of variance", "lower", control.fvu),
        Score("l0", here.l0, *l0, n, "features per row", "none", control.l0),
        Score("dead", here.dead, fewest, here.dead, n, "fraction of features", "lower", control.dead),
    ]
    if subject is not None and queries:
        scores.append(_downstream(sae, subject, queries, held, sampling, draws, seed))
        scores += _next_tokens(sae, subject, queries, held, draws, seed)
    return tuple(scores)


def untrained(sae: Sae, k: int, seed: int) -> Sae:
    """The control: random decoder rows of norm 1, encoder tied to them, of the width, bias and scale of `sae`."""
    noise = torch.randn(sae.width, sae.d, generator=torch.Generator().manual_seed(seed))
    W_dec = unit(noise, dim=1).to(sae.W_dec)
    activation = TopK(min(max(1, k), sae.width))
    scale = sae.scale if sae.row_norm == "none" else sae.row_norm
    W_enc, b_enc, b_dec = W_dec.mT.contiguous(), torch.zeros_like(sae.b_enc), sae.b_dec.detach()
    return Sae(sae.site, activation, W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, scale=scale)


@torch.no_grad()
def sums(sae: Sae, held: HeldOutRows) -> Sums:
    """One pass over the held-out rows."""
    device = sae.W_enc.device
    totals = torch.zeros(3, held.groups, dtype=torch.float64, device=device)
    fired = torch.zeros(held.groups * sae.width, dtype=torch.int32, device=device)
    mean = held.mean.to(device)
    for rows, whose in held.chunks(sae):
        codes = sae.encode(rows)
        fires = codes.values > 0
        parts = (
            torch.ones_like(whose),
            (rows.double() - sae.decode(codes).double()).square().sum(1),
            (rows.double() - mean).square().sum(1),
        )
        for total, part in zip(totals, parts, strict=True):
            total.index_add_(0, whose, part.double())
        slots = (whose[:, None] * sae.width + codes.indices)[fires]
        fired.index_add_(0, slots, torch.ones_like(slots, dtype=torch.int32))
    count, squared_error, variance = totals.cpu()
    return Sums(count, squared_error, variance, fired.view(held.groups, sae.width).cpu())


def _next_tokens(
    sae: Sae,
    subject: Subject,
    queries: Sequence[Prompt] | Sequence[Query],
    held: HeldOutRows,
    draws: int,
    seed: int,
) -> tuple[Score, ...]:
    from concept_probe.families.language.causal_lm import CausalLMSubject  # a model library that rows alone do not need
    from concept_probe.learn.judge.next_tokens import next_token_scores

    prompts = [q for q in queries if isinstance(q, Prompt)]
    if not isinstance(subject, CausalLMSubject) or not prompts:
        return ()
    return next_token_scores(sae, subject, prompts, held, draws=draws, seed=seed)


def _downstream(
    sae: Sae,
    subject: Subject,
    queries: Sequence[Prompt] | Sequence[Query],
    held: HeldOutRows,
    sampling: Sampling,
    draws: int,
    seed: int,
) -> Score:
    from concept_probe.learn.judge.downstream import (
        downstream_errors,  # loads model libraries that rows alone do not need
    )

    ours, means = downstream_errors(sae, subject, queries, held.covered, held.mean, sampling)
    ids = {text: i for i, text in enumerate(dict.fromkeys(map(prompt_text, queries)))}
    whose = torch.tensor([ids[prompt_text(q)] for q in queries])
    totals = torch.zeros(2, len(ids), dtype=torch.float64)
    totals[0].index_add_(0, whose, ours)
    totals[1].index_add_(0, whose, means)
    if float(totals[1].sum()) == 0:
        raise ValueError(
            f"replacing {sae.site} by its mean changed nothing in the output of {len(queries)} "
            f"{type(queries[0]).__name__} objects; a site outside the text encoders needs Query objects"
        )
    if len(ids) < 2:
        raise ValueError(f"the queries hold {len(ids)} prompt; an interval needs at least two")
    counts = bootstrap_counts(len(ids), draws, seed)
    low, high = ratio_percentiles((counts @ totals[0]) / (counts @ totals[1]))
    output = "pictures" if isinstance(queries[0], Query) else "text states"
    value = float(totals[0].sum() / totals[1].sum())
    return Score("downstream", value, low, high, len(ids), f"of mean-ablation's change of {output}", "lower", 1.0)
