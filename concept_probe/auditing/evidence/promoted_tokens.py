"""Parameters of language models: which tokens every concept vector promotes, before and after (arXiv 2406.11614)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence.finding import Evidence, Measure, Metric, compare, mean_estimate
from concept_probe.auditing.evidence.parameters import VECTORS, vectors_found
from concept_probe.families import CausalLMSubject
from concept_probe.find.language.unembedding import Unembedding
from concept_probe.types import Site

MOST_TOKENS = 50
"""Tokens per column, or a tenth of a smaller vocabulary."""
JACCARD = Metric("parameters", "Jaccard index of the tokens that the vectors promote most", "none", "share")


def _promoted_tokens(context: Context) -> Evidence:
    """Jaccard index of the tokens that a column promotes most, before and after; the next column is the control."""
    before, after = context.arms.before.subject, context.arms.after.subject
    columns = [v.site for v in vectors_found(context) if v.site.item is not None]
    if not columns or not isinstance(before, CausalLMSubject) or not isinstance(after, CausalLMSubject):
        return Evidence()
    first, beside = promoted(before, columns), promoted(before, [_next(before, site) for site in columns])
    with context.arms.after.on():
        second = promoted(after, columns)
    kept, chance = jaccard(first, second), jaccard(first, beside)
    now = mean_estimate(context, kept, "tokens of vectors")
    control = "the next column of the same matrix"
    return Evidence((compare(JACCARD, f"{len(columns)} vectors", 1.0, now, float(chance.mean()), control=control),))


def _next(subject: CausalLMSubject, site: Site) -> Site:
    width = subject.matrix(site).shape[1]
    return Site(site.component, site.path, site.side, ((site.item or 0) + 1) % width)


@torch.no_grad()
def promoted(subject: CausalLMSubject, columns: Sequence[Site]) -> Tensor:
    """(columns, top) ids of the tokens that each column promotes most."""
    head = Unembedding.of(subject, "folded")
    values = torch.stack([subject.matrix(site)[:, site.item or 0] for site in columns], dim=1)
    scores = head.scores(values)
    return scores.topk(min(MOST_TOKENS, max(1, scores.shape[1] // 10)), dim=1).indices.cpu()


def jaccard(a: Tensor, b: Tensor) -> Tensor:
    """(n,) |A ∩ B| / |A ∪ B| of rows of ids."""
    shared = torch.tensor([len(set(x) & set(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]).double()
    return shared / (2 * a.shape[1] - shared)


PROMOTED_TOKENS = Measure("promoted tokens", _promoted_tokens, on="texts", needs=(VECTORS,))
