"""Orders of a language model's columns: by what they say of a concept, or by what its answers owe to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.evaluation.rates import per_fact
from concept_probe.find.language.enrichment import EnrichedColumns
from concept_probe.find.language.knowledge import log_answers, weigh, weighable
from concept_probe.find.language.writing import Writing
from concept_probe.find.vectors.columns import RankedColumns, hidden_site, matrix_site
from concept_probe.registry import look_up
from concept_probe.types import FORGET_KINDS, OTHER_KINDS, Concept, Moment, Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject

Owed = Literal["answers", "odds"]
SURE = 2.0
"""Standard errors by which a column's effect must stand out."""


def rank_by_reading(
    subject: CausalLMSubject, concept: Concept, enriched: EnrichedColumns, *, rate: float = 0.1, batch: int = 32
) -> RankedColumns:
    """Columns discovered at a false-discovery `rate`, by how much they push the concept's tokens where it is asked of.

    The score is (mean coefficient on the concept's fit prompts - mean on others) x length x sign x enrichment; the
    load, on which random columns are matched, is mean |coefficient| x length over all fit prompts. Columns that were
    not discovered stand behind with score -inf.
    """
    matrices = tuple(dict.fromkeys(matrix_site(site) for site in enriched.sites))
    own, others = _contrasted(concept)
    mine, mine_size = _coefficients(subject, own, matrices, batch)
    theirs, their_size = _coefficients(subject, others, matrices, batch)
    found, size = enriched.discovered(rate), _mixed(mine_size, their_size, own, others)
    pushes, loads = [], []
    for i, site in enumerate(enriched.sites):
        at, j = matrix_site(site), site.item or 0
        loads.append(float(size[at][j]))
        push = float((mine[at][j] - theirs[at][j]) * enriched.sign[i] * enriched.scores[i])
        pushes.append(push if i < found else -torch.inf)
    score = torch.tensor(pushes, dtype=torch.float64)
    order = score.argsort(descending=True, stable=True)
    places = tuple(enriched.sites[i] for i in order.tolist())
    return RankedColumns(places, score[order].float(), torch.tensor(loads)[order], "reading")


def rank_by_effect(
    subject: CausalLMSubject, concept: Concept, *, on: Owed = "answers", most: int = 48, batch: int = 8
) -> RankedColumns:
    """All columns, by how far the concept's right answers would surely fall without them.

    What falls is log P(answers), or with `on="odds"` the log odds of right answers against wrong ones, which leaves out
    columns that hold the topic and not the fact. A prompt's effect is, to first order, the sum over positions of
    a * d log P / da, a the column's coefficient. The score is its mean over the concept's facts less that over others,
    less `SURE` standard errors, so that a column that everything needs, now more and now less, does not come first. At
    most `most` fit prompts of each, with answers and distractors; the load is as in `rank_by_reading`, over these.
    """
    look_up(dict.fromkeys(get_args(Owed)), on, "what is owed to columns")
    matrices = subject.sites("mlp_value")
    own, others = (weighable(concept, kinds, "fit", most) for kinds in (FORGET_KINDS, OTHER_KINDS))
    size = _mixed(
        _coefficients(subject, own, matrices, batch)[1], _coefficients(subject, others, matrices, batch)[1], own, others
    )
    mine, theirs = (_effects(subject, asked, matrices, on, batch) for asked in (own, others))
    score = torch.cat([_surely_more(mine[site], theirs[site]) for site in matrices])
    load = torch.cat([size[site] for site in matrices])
    places = [Site(s.component, s.path, "weight", j) for s in matrices for j in range(len(size[s]))]
    order = score.argsort(descending=True, stable=True)
    judged = "attribution" if on == "answers" else "odds"
    return RankedColumns(tuple(places[i] for i in order.tolist()), score[order], load[order], judged)


def _surely_more(mine: Tensor, theirs: Tensor) -> Tensor:
    """(c,): how much larger the column means of `mine` (n, c) are than those of `theirs` (m, c), less `SURE` errors."""
    error = sum(x.var(0, correction=1).nan_to_num() / len(x) for x in (mine, theirs))
    return mine.mean(0) - theirs.mean(0) - SURE * torch.as_tensor(error).sqrt()


def _effects(
    subject: CausalLMSubject, prompts: Sequence[Prompt], matrices: Sequence[Site], on: Owed, batch: int
) -> dict[Site, Tensor]:
    """Per matrix (facts, columns): what each fact's answers owe to each column, to first order."""
    seen: list[tuple[Site, Tensor, Tensor, tuple[int, ...]]] = []

    def leaf(site: Site):
        def fn(x: Tensor, moment: Moment) -> Tensor:
            added = torch.zeros_like(x, requires_grad=True)
            seen.append((site, x.detach(), added, moment.prompts))
            return x + added

        return fn

    def read_after(prompt: Prompt) -> tuple[str, ...]:
        """The texts that are read after a prompt: a moment's `prompts` count them."""
        return (*prompt.answers, *prompt.distractors) if on == "odds" else prompt.answers

    total = {site: torch.zeros(len(prompts), subject.matrix(site).shape[1]) for site in matrices}
    with torch.enable_grad(), tap(subject, {hidden_site(subject, site): leaf(site) for site in matrices}):
        for start in range(0, len(prompts), batch):
            asked = prompts[start : start + batch]
            if on == "odds":
                value = weigh(subject, asked, batch=batch).odds
            else:
                value = log_answers(subject, asked, batch=batch)
            gradients = torch.autograd.grad(value.sum(), [added for _, _, added, _ in seen], allow_unused=True)
            owner = torch.tensor([start + i for i, p in enumerate(asked) for _ in read_after(p)])
            for (site, x, _, pairs), gradient in zip(seen, gradients, strict=True):
                if gradient is not None:
                    total[site].index_add_(0, owner[list(pairs)], (x * gradient).float().sum(1).cpu())
            seen.clear()
    return {site: per_fact(each, prompts) for site, each in total.items()}


def _contrasted(concept: Concept) -> tuple[list[Prompt], list[Prompt]]:
    own = [p for kind in FORGET_KINDS for p in concept.prompts(kind, "fit")]
    others = [p for kind in OTHER_KINDS for p in concept.prompts(kind, "fit")]
    if not own or not others:
        raise ValueError(f"concept {concept.name!r} needs fit prompts of its own and of others to contrast")
    return own, others


def _mixed(
    mine: Mapping[Site, Tensor], theirs: Mapping[Site, Tensor], own: Sequence[Prompt], others: Sequence[Prompt]
) -> dict[Site, Tensor]:
    """Means over all prompts, of means over each half."""
    n = len(own) + len(others)
    return {site: (mine[site] * len(own) + theirs[site] * len(others)) / n for site in mine}


def _coefficients(
    subject: CausalLMSubject, prompts: Sequence[Prompt], matrices: Sequence[Site], batch: int
) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
    """Per matrix and column: mean coefficient x length, and mean |coefficient| x length; prompts count alike."""
    total: dict[Site, Tensor] = {}
    size: dict[Site, Tensor] = {}

    def look(site: Site):
        def fn(x: Tensor, moment: Moment) -> None:
            if moment.places is None:
                raise ValueError("this moment does not say which positions are read")
            read = (moment.places >= 0).to(x)
            share = (read / read.sum(1, keepdim=True))[..., None]
            total[site] = total.get(site, 0) + (x * share).sum((0, 1)).detach()
            size[site] = size.get(site, 0) + (x.abs() * share).sum((0, 1)).detach()

        return fn

    looks = {hidden_site(subject, site): look(site) for site in matrices}
    with torch.no_grad(), tap(subject, looks):
        for start in range(0, len(prompts), batch):
            subject.encode(prompts[start : start + batch], batch=batch)
    lengths = {
        site: torch.linalg.vector_norm(Writing.of(subject, site)(subject.matrix(site).detach()), dim=0)
        for site in matrices
    }
    return tuple(  # pyright: ignore[reportReturnType]
        {site: (sums[site] * lengths[site] / len(prompts)).float().cpu() for site in matrices} for sums in (total, size)
    )
