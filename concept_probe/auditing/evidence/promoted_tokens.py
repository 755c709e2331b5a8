"""Parameters of language models: which tokens every concept vector promotes, before and after (arXiv 2406.11614)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from concept_probe.auditing.arm import Arm
from concept_probe.auditing.evidence.behaviour import Evidence, Views
from concept_probe.families import CausalLMSubject
from concept_probe.find.language.unembedding import Unembedding
from concept_probe.types import Finding, Site, Subspace

TOP = 50
"""Tokens per column, or a tenth of a smaller vocabulary."""


def tokens(out: Evidence, views: Views, before: Arm, after: Arm, vectors: Sequence[Subspace]) -> None:
    """Jaccard index of the tokens that a column promotes most, before and after; the next column is the control."""
    columns = [v.site for v in vectors if v.site.item is not None]
    if not columns or not isinstance(before.subject, CausalLMSubject) or not isinstance(after.subject, CausalLMSubject):
        return
    others = [_next(before.subject, site) for site in columns]
    first, beside = _promoted(before.subject, columns), _promoted(before.subject, others)
    with after.on():
        second = _promoted(after.subject, columns)
    kept, chance = _jaccard(first, second), _jaccard(first, beside)
    low, high = views.bootstrap.mean(kept, "tokens of vectors")
    out.findings.append(
        Finding(
            evidence="parameters",
            metric="Jaccard index of the tokens that the vectors promote most",
            split=f"{len(columns)} vectors",
            before=1.0,
            after=float(kept.mean()),
            control=float(chance.mean()),
            low=low,
            high=high,
            n=len(columns),
            control_name="the next column of the same matrix",
            unit="share",
        )
    )


def _next(subject: CausalLMSubject, site: Site) -> Site:
    width = subject.matrix(site).shape[1]
    return Site(site.component, site.path, site.side, ((site.item or 0) + 1) % width)


@torch.no_grad()
def _promoted(subject: CausalLMSubject, columns: Sequence[Site]) -> Tensor:
    """(columns, top) token ids."""
    head = Unembedding.of(subject, "folded")
    values = torch.stack([subject.matrix(site)[:, site.item or 0] for site in columns], dim=1)
    scores = head.scores(values)
    return scores.topk(min(TOP, max(1, scores.shape[1] // 10)), dim=1).indices.cpu()


def _jaccard(a: Tensor, b: Tensor) -> Tensor:
    """(n,) |A ∩ B| / |A ∪ B| of rows of ids."""
    shared = torch.tensor([len(set(x) & set(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]).double()
    return shared / (2 * a.shape[1] - shared)
