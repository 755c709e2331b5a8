"""How good an autoencoder is on rows and prompts that it was not trained on, each number beside its control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from concept_probe.learn.provenance import seen, text_of
from concept_probe.learn.resample import low_high, resample
from concept_probe.learn.sae import Sae, TopK
from concept_probe.types import Prompt, Query, Sampling, Score, Site, unit

if TYPE_CHECKING:
    from concept_probe.families.subject import Subject

CHUNK = 8192
SAMPLING = Sampling()


class Rows(Protocol):
    """Rows of one site and what each is: `capture.Block`."""

    @property
    def x(self) -> Tensor: ...
    @property
    def columns(self) -> Mapping[str, Tensor]: ...


class HeldOut(Protocol):
    """What evaluation asks of captured activations; `capture.Activations` is one."""

    @property
    def sites(self) -> tuple[Site, ...]: ...
    @property
    def prompts(self) -> Sequence[Prompt | Query]: ...
    def width(self, site: Site) -> int: ...
    def read(self, site: Site, *, columns: bool = True) -> Rows: ...


@dataclass(frozen=True)
class _PerPrompt:
    """Sums over the rows of each of p prompts."""

    rows: Tensor
    squared_error: Tensor
    variance: Tensor
    fired: Tensor
    """(p,) features that fired, summed over rows."""
    ever: Tensor
    """(p, f) bool: whether a feature fired on any row of the prompt."""

    @property
    def fvu(self) -> float:
        return float(self.squared_error.sum() / self.variance.sum())

    @property
    def l0(self) -> float:
        return float(self.fired.sum() / self.rows.sum())

    @property
    def dead(self) -> float:
        return float((~self.ever.any(0)).double().mean())


@torch.no_grad()
def evaluate_sae(
    sae: Sae,
    activations: HeldOut,
    *,
    subject: Subject | None = None,
    queries: Sequence[Prompt] | Sequence[Query] = (),
    sampling: Sampling = SAMPLING,
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

    The control of the first three is an untrained autoencoder of the same width, k, bias and scale.
    Intervals are percentiles of `draws` bootstrap samples of prompts.

    Raises ValueError where site or width differ (naming both), where fewer than two prompts have rows, or
    where a prompt was in training.
    """
    _matches(sae, activations)
    _unseen(sae, (*activations.prompts, *queries))
    block = activations.read(sae.site)
    if not bool(torch.isfinite(block.x).all()):
        row = int((~torch.isfinite(block.x)).any(1).nonzero()[0])
        raise FloatingPointError(f"activations of {sae.site}: row {row} holds NaN or infinity")
    texts = [*map(text_of, activations.prompts), ""]  # rows of guidance's empty prompt have number -1: the last
    ids = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    owner = torch.tensor([ids[text] for text in texts], device=block.x.device)[block.columns["prompt"]]
    mean = block.x.double().mean(0)
    here = _measure(sae, block.x, owner, mean)
    control = _measure(_untrained(sae, round(here.l0), seed), block.x, owner, mean)
    n = here.rows.shape[0]
    if n < 2:
        raise ValueError(f"activations of {sae.site} hold rows of {n} prompt; an interval needs at least two")
    counts = resample(n, draws, seed).to(block.x.device)
    fvu = low_high((counts @ here.squared_error) / (counts @ here.variance))
    l0 = low_high((counts @ here.fired) / (counts @ here.rows))
    dead = (~((counts @ here.ever.double()) > 0)).double().mean(1)
    fewest = max(0.0, 2 * here.dead - low_high(dead)[1])
    scores = [
        Score("fvu", here.fvu, *fvu, n, "fraction of variance", "lower", control.fvu),
        Score("l0", here.l0, *l0, n, "features per row", "none", control.l0),
        Score("dead", here.dead, fewest, here.dead, n, "fraction of features", "lower", control.dead),
    ]
    if subject is not None and queries:
        scores.append(_downstream(sae, subject, queries, block, mean, sampling, draws, seed))
    return tuple(scores)


def _matches(sae: Sae, activations: HeldOut) -> None:
    if sae.site not in activations.sites:
        held = ", ".join(map(str, activations.sites))
        raise ValueError(f"the autoencoder is for site {sae.site}; the activations hold {held}")
    if (width := activations.width(sae.site)) != sae.d:
        raise ValueError(f"the autoencoder over {sae.site} has width {sae.d}, the activations there have width {width}")


def _unseen(sae: Sae, prompts: Sequence[Prompt | Query]) -> None:
    if overlap := seen(sae.made_by.get("prompts"), prompts):
        named = ", ".join(map(repr, overlap[:3]))
        raise ValueError(
            f"{len(overlap)} prompts were used to train the autoencoder over {sae.site} and cannot judge it: "
            f"{named}; use prompts of another split"
        )


def _untrained(sae: Sae, k: int, seed: int) -> Sae:
    noise = torch.randn(sae.width, sae.d, generator=torch.Generator().manual_seed(seed))
    W_dec = unit(noise, dim=1).to(sae.W_dec)
    activation = TopK(min(max(1, k), sae.width))
    W_enc, b_enc, b_dec = W_dec.mT.contiguous(), torch.zeros_like(sae.b_enc), sae.b_dec.detach()
    return Sae(sae.site, activation, W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, scale=sae.scale)


def _measure(sae: Sae, x: Tensor, owner: Tensor, mean: Tensor) -> _PerPrompt:
    """Sums per prompt; prompts without rows are left out."""
    present, owner = owner.unique(return_inverse=True)
    sums = torch.zeros(4, present.shape[0], dtype=torch.float64, device=sae.W_enc.device)
    ever = torch.zeros(present.shape[0], sae.width, dtype=torch.bool, device=sae.W_enc.device)
    for rows, whose in zip(x.to(sae.W_enc.device).split(CHUNK), owner.to(sae.W_enc.device).split(CHUNK), strict=True):
        codes = sae.encode(rows)
        fires = codes.values > 0
        parts = (
            torch.ones_like(whose),
            (rows.double() - sae.decode(codes).double()).square().sum(1),
            (rows.double() - mean.to(rows.device)).square().sum(1),
            fires.sum(1),
        )
        for total, part in zip(sums, parts, strict=True):
            total.index_add_(0, whose, part.double())
        ever[whose[:, None].expand_as(codes.indices)[fires], codes.indices[fires]] = True
    rows_, squared_error, variance, fired = sums.to(x.device)
    return _PerPrompt(rows_, squared_error, variance, fired, ever.to(x.device))


def _downstream(
    sae: Sae,
    subject: Subject,
    queries: Sequence[Prompt] | Sequence[Query],
    block: Rows,
    mean: Tensor,
    sampling: Sampling,
    draws: int,
    seed: int,
) -> Score:
    from concept_probe.learn.downstream import downstream_errors  # loads model libraries that rows alone do not need

    ours, means = downstream_errors(sae, subject, queries, block.columns, mean, sampling)
    ids = {text: i for i, text in enumerate(dict.fromkeys(map(text_of, queries)))}
    whose = torch.tensor([ids[text_of(q)] for q in queries])
    sums = torch.zeros(2, len(ids), dtype=torch.float64)
    sums[0].index_add_(0, whose, ours)
    sums[1].index_add_(0, whose, means)
    if float(sums[1].sum()) == 0:
        raise ValueError(
            f"replacing {sae.site} by its mean changed nothing in the output of {len(queries)} "
            f"{type(queries[0]).__name__} objects; a site outside the text encoders needs Query objects"
        )
    if len(ids) < 2:
        raise ValueError(f"the queries hold {len(ids)} prompt; an interval needs at least two")
    counts = resample(len(ids), draws, seed)
    low, high = low_high((counts @ sums[0]) / (counts @ sums[1]))
    output = "pictures" if isinstance(queries[0], Query) else "text states"
    value = float(sums[0].sum() / sums[1].sum())
    return Score("downstream", value, low, high, len(ids), f"of mean-ablation's change of {output}", "lower", 1.0)
