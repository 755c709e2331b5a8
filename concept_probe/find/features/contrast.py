"""Which features of a sparse autoencoder belong to a concept: contrast on fit prompts, selectivity on held-out ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from concept_probe.arguments import Count, SeedNumber, Share, checked_argument
from concept_probe.evaluation.auroc import auroc_scores
from concept_probe.families.text.kinds import NAMED_KINDS
from concept_probe.find.layout import has_tokens
from concept_probe.find.rows import ConceptRows, RowQuery, concept_rows
from concept_probe.learn.belongs import check_belongs
from concept_probe.registry import check_choice
from concept_probe.types import KINDS, TOKEN_KINDS, Codes, Concept, Sampling, Score, SparseCoder, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

Formula = Literal["share", "mean", "margin"]
CANDIDATES = 64
"""How many of the features of largest contrast are tested on the select split."""


@dataclass(frozen=True)
class Contrast:
    """How much more each feature fires on the concept than on the rest, per group of rows."""

    groups: tuple[tuple[str, str, int], ...]
    """(list of prompts, kind of token or `patch`, denoising step or -1)"""
    table: Tensor
    """(groups, f)"""

    def total(self) -> Tensor:
        """(f,): mean over denoising steps, then the largest over lists of prompts and kinds of token.

        The largest, because a feature that carries the concept at one kind of token, or for one way
        of naming it, matters as much as one that fires everywhere.
        """
        lines: dict[tuple[str, str], list[int]] = {}
        for i, (source, kind, _) in enumerate(self.groups):
            lines.setdefault((source, kind), []).append(i)
        return torch.stack([self.table[i].mean(0) for i in lines.values()]).amax(0)


def _coded(codec: SparseCoder, x: Tensor) -> Codes:
    """Codes of captured rows x (n, d), which are read where the autoencoder is and counted where they were."""
    codes = codec.encode(x.to(codec.decoder.device))
    return Codes(codes.values.to(x.device), codes.indices.to(x.device))


def _means(codec: SparseCoder, rows: ConceptRows, group: Tensor, count: int, *, chunk: int = 65536) -> Tensor:
    """Mean firing (count, f) of every feature over the rows of each group; group -1 is left out."""
    total = torch.zeros(count * codec.width, dtype=torch.float64)
    for start in range(0, len(group), chunk):
        part = group[start : start + chunk]
        keep = part >= 0
        codes = _coded(codec, rows.x[start : start + chunk][keep])
        slots = part[keep][:, None] * codec.width + codes.indices
        total.index_add_(0, slots.flatten(), codes.values.double().flatten())
    sizes = torch.bincount(group[group >= 0], minlength=count).clamp_min(1)
    return total.view(count, codec.width) / sizes[:, None]


@torch.no_grad()
def contrast(codec: SparseCoder, rows: ConceptRows, formula: Formula = "share") -> Contrast:
    """Contrast of every feature (for `share`, the score of SAeUron, arXiv 2501.18052).

    `share`: μ_i(t, c) / Σ_j μ_j(t, c) - μ_i(t, ¬c) / Σ_j μ_j(t, ¬c), with μ the mean firing at step t;
    `mean`: μ_i(t, c) - μ_i(t, ¬c), in the units of the codes. `margin`: μ_i(t, c) - max_o μ_i(t, o) over all
    other things o that prompts show, so that a feature which one neighbour shares scores low however rare
    that neighbour is. One row of the table per list of the concept's prompts, kind of token and step;
    ¬c are all other prompts at that kind and step.
    """
    check_choice(formula, Formula, "formula")
    groups, lines = [], []
    for kind in rows.kind.unique().tolist():
        for step in rows.step.unique().tolist():
            here = (rows.kind == kind) & (rows.step == step)
            if not (here & ~rows.concept).any():
                continue
            sources = rows.source[here & rows.concept].unique().tolist()
            group = torch.full_like(rows.source, -1)
            for i, source in enumerate(sources):
                group[here & rows.concept & (rows.source == source)] = i
            others = here & ~rows.concept
            things, place = rows.about[others].unique(return_inverse=True)
            group[others] = len(sources) + (place if formula == "margin" else 0)
            mu = _means(codec, rows, group, len(sources) + (len(things) if formula == "margin" else 1))
            if formula == "share":
                mu = mu / mu.sum(1, keepdim=True).clamp_min(torch.finfo(mu.dtype).tiny)
            rest = mu[len(sources) :].amax(0)
            for i, source in enumerate(sources):
                groups.append((KINDS[source], TOKEN_KINDS[kind] if kind >= 0 else "patch", step))
                lines.append(mu[i] - rest)
    if not groups:
        raise ValueError(f"no kind of token at {codec.site} has rows both of the concept and of other prompts")
    return Contrast(tuple(groups), torch.stack(lines))


@torch.no_grad()
def prompt_firing(codec: SparseCoder, rows: ConceptRows, features: Tensor) -> tuple[Tensor, Tensor]:
    """Largest firing of chosen features in each prompt (p, m), and whether the prompt is the concept's (p,)."""
    ids, where = rows.prompt.unique(return_inverse=True)
    slot = torch.full((codec.width,), len(features))
    slot[features] = torch.arange(len(features))
    out = torch.zeros(len(ids), len(features))
    for start in range(0, len(where), 65536):
        codes = _coded(codec, rows.x[start : start + 65536])
        dense = torch.zeros(len(codes.values), len(features) + 1)
        # Added, not written: a padded place may name a feature that fires elsewhere in the row.
        dense.scatter_add_(1, slot[codes.indices], codes.values.float())
        part = where[start : start + 65536, None].expand(-1, len(features))
        out.scatter_reduce_(0, part, dense[:, :-1], "amax")
    labels = torch.zeros(len(ids), dtype=torch.bool)
    labels[where] = rows.concept
    return out, labels


def find_features(
    sae: SparseCoder | Sequence[SparseCoder],
    subject: Subject,
    concept: Concept,
    *,
    count: int | None = None,
    which: RowQuery = RowQuery(),
    formula: Formula = "share",
    coverage: float = 0.9,
    seed: int = 0,
) -> tuple[Subspace, ...]:
    """The concept's features of one or several autoencoders, one Subspace per site.

    Contrast is measured on the fit split, selectivity (AUROC of a feature's largest firing per
    prompt) on the select split. With `count` None a feature is kept if its AUROC's interval lies
    above what 97.5 % of shuffled labels reach, and features are taken by contrast until they hold
    `coverage` of the contrast of all that were kept; a site with none gives no Subspace. With a
    `count`, that many of largest contrast, whatever their AUROC.

    An autoencoder that was trained on other weights is refused (see `accept_subject`).

    `which` rows are read: sites in the denoising loop make an image per prompt, so give them a `limit`.
    """
    codecs = list(sae) if isinstance(sae, Sequence) else [sae]
    if not codecs:
        raise ValueError("no autoencoder was given")
    count = checked_argument(count, Count | None, "count")
    coverage, seed = checked_argument(coverage, Share, "coverage"), checked_argument(seed, SeedNumber, "seed")
    for codec in codecs:
        check_belongs(codec, subject)
    sites = [codec.site for codec in codecs]
    fit, held = (concept_rows(subject, concept, sites, split, which) for split in ("fit", "select"))
    found = []
    for codec in codecs:
        scored = contrast(codec, fit[codec.site], formula).total()
        best = scored.topk(min(count or CANDIDATES, codec.width)).indices
        best = best if count else best[scored[best] > 0]
        if not len(best):
            continue
        firing, labels = prompt_firing(codec, held[codec.site], best)
        scores = auroc_scores(firing, labels, "AUROC of a feature, select split", seed=seed)
        keep = torch.ones(len(best), dtype=torch.bool) if count else _kept(scores, scored[best], coverage)
        if keep.any():
            found.append(_subspace(subject, concept, codec, best[keep], firing[:, keep], labels, scores, keep, seed))
    return tuple(found)


def _kept(scores: Sequence[Score], contrasts: Tensor, coverage: float) -> Tensor:
    """Which candidates, in order of falling contrast, are selective and needed to reach `coverage`."""
    selective = torch.tensor([s.control is not None and s.low > max(s.control, 0.5) for s in scores])
    weight = torch.where(selective, contrasts, 0.0)
    before = weight.cumsum(0) - weight
    return selective & (before < coverage * weight.sum())


def _subspace(
    subject: Subject,
    concept: Concept,
    codec: SparseCoder,
    features: Tensor,
    firing: Tensor,
    labels: Tensor,
    scores: Sequence[Score],
    keep: Tensor,
    seed: int,
) -> Subspace:
    name = "AUROC of the features together, select split"
    together = auroc_scores(firing.sum(1, keepdim=True), labels, name, seed=seed)
    role = next((r for r in subject.roles() if codec.site in subject.sites(r)), "")
    return Subspace(
        codec.site,
        codec.decoder[features].detach().mT.contiguous(),
        "activation",
        together[0],
        concept.name,
        role,
        features=tuple(features.tolist()),
        codec=codec,
        scores=tuple(score for score, kept in zip(scores, keep.tolist(), strict=True) if kept),
    )


@torch.no_grad()
def mean_firing(
    codec: SparseCoder, subject: Subject, concept: Concept, features: Sequence[int], *, limit: int | None = None,
    sampling: Sampling = Sampling(),
) -> Tensor:  # fmt: skip
    """Mean value (m,) of each feature over the concept's fit rows where it fires; 0 for one that never fires."""
    every = NAMED_KINDS if subject.reads_forward else TOKEN_KINDS
    kinds = every if has_tokens(subject, codec.site) else ()
    which = RowQuery(kinds, limit=limit, sampling=sampling)
    rows = concept_rows(subject, concept, [codec.site], "fit", which)[codec.site]
    codes = _coded(codec, rows.select(rows.concept).x)
    dense = torch.stack([torch.where(codes.indices == j, codes.values, 0).sum(1) for j in features], 1)
    return dense.sum(0) / (dense > 0).sum(0).clamp_min(1)
