"""Concept vectors of a language model: columns that speak of the concept, kept only if its answers need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from concept_probe.arguments import Count, check_arguments
from concept_probe.evaluation.bootstrap import mean_score
from concept_probe.evaluation.rates import per_fact
from concept_probe.find.language.enrichment import EnrichedColumns, NoTokens, enriched_columns
from concept_probe.find.language.knowledge import Weighed, weigh, weighable
from concept_probe.find.language.ranking import rank_by_effect, rank_by_reading
from concept_probe.find.language.unembedding import Norm
from concept_probe.find.vectors.columns import RankedColumns, matrix_site, zero_columns
from concept_probe.registry import look_up
from concept_probe.types import FORGET_KINDS, OTHER_KINDS, Concept, Prompt, Score, Split, Subspace

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject

Ranking = Literal["reading", "attribution", "odds"]
LM_COUNTS = (2, 8, 32, 128, 512)
LM_RANKINGS: tuple[Ranking, ...] = ("attribution", "reading", "odds")
"""How columns are ranked, tried in turn: by what log P(answers) owes to them, which finds the most; by the tokens that
they speak for, which a reader can check; and by what the odds against wrong answers owe to them."""


@dataclass(frozen=True)
class LmRanking:
    """How columns of a language model are put in order."""

    by: Ranking = "attribution"
    norm: Norm = "folded"
    """With `reading`: whether the final norm is folded into the unembedding."""
    rate: float = 0.1
    """With `reading`: the false-discovery rate up to which a column counts as one that speaks of the concept."""

    def __post_init__(self) -> None:
        check_arguments(self, "ranking")
        look_up(dict.fromkeys(LM_RANKINGS), self.by, "ranking of columns")


@dataclass(frozen=True)
class WeighedPrompts:
    """On which prompts columns are judged: those with answers and distractors."""

    split: Split = "select"
    most: Count = 48
    """Of the concept's prompts, and of the others."""

    def __post_init__(self) -> None:
        check_arguments(self, "weighed prompts")


@dataclass(frozen=True)
class ColumnRemoval:
    """What zeroing so many columns does to answers, against as many matched random ones.

    Paired by prompt; wordings of one fact are averaged first, so n and the intervals are those of facts.
    """

    count: int
    drop: Score
    """How far the log likelihood of the concept's right answers falls, in nats, less the same with random columns
    zeroed."""
    excess: Score
    """The concept's mean drop less that of the other prompts."""
    odds: Score
    """The drop of right answers' log odds against wrong ones of the same kind: above 0, the facts suffer and not only
    the topic."""
    known: Score
    """Share of the concept's prompts whose right answer is still likelier than the wrong ones; `control` is the same
    with random columns zeroed."""
    others: Score
    """The same for the other prompts; `control` is the untouched subject's."""

    @property
    def causal(self) -> bool:
        """Whether both intervals, of `drop` and of `excess`, lie above 0; one fact alone shows nothing."""
        return self.drop.n > 1 and self.drop.low > 0 and self.excess.low > 0


@dataclass(frozen=True)
class ColumnSearch:
    """Candidates, and what zeroing more and more of them does."""

    ranked: RankedColumns
    enriched: EnrichedColumns | None
    """What the columns speak of, where that ranked them."""
    before: Score
    """Share of the concept's prompts that the untouched subject knows."""
    removals: tuple[ColumnRemoval, ...]
    floor: float
    """Share of the others' knowledge that a removal must keep to be chosen."""

    def chosen(self) -> ColumnRemoval | None:
        """The causal removal with the largest excess that keeps `floor` of the others; None where there is none."""
        good = [r for r in self.removals if r.causal and r.others.value >= self.floor * (r.others.control or 0)]
        return max(good, key=lambda r: r.excess.value, default=None)


@torch.no_grad()
def search_lm_columns(
    subject: CausalLMSubject,
    concept: Concept,
    ranking: LmRanking = LmRanking(),
    *,
    counts: Sequence[int] = LM_COUNTS,
    controls: int = 3,
    floor: float = 0.9,
    asked: WeighedPrompts = WeighedPrompts(),
    seed: int = 0,
) -> ColumnSearch:
    """Zero more and more of the columns that are ranked first for the concept, and see which answers suffer.

    Columns are ranked on the fit split (`rank_by_reading`, or `rank_by_effect`) and judged on the prompts `asked`.
    `controls` draws of random columns of the same layers and like load are zeroed for comparison. Of counts beyond the
    candidates, all candidates stand in. A removal that leaves others less than `floor` of what they know is no choice.
    """
    enriched = enriched_columns(subject, concept, norm=ranking.norm, seed=seed) if ranking.by == "reading" else None
    ranked = (
        rank_by_effect(subject, concept, on="odds" if ranking.by == "odds" else "answers")
        if enriched is None
        else rank_by_reading(subject, concept, enriched, rate=ranking.rate)
    )
    own, others = (weighable(concept, kinds, asked.split, asked.most) for kinds in (FORGET_KINDS, OTHER_KINDS))
    prompts = [*own, *others]
    before = weigh(subject, prompts)
    generator = torch.Generator().manual_seed(seed)
    # Only columns that are pushed towards the concept's tokens or answers.
    usable = int((ranked.scores > 0).sum())
    removals = []
    for count in sorted({min(c, usable) for c in counts} - {0}):
        with zero_columns(subject, ranked.by_layer(range(count))):
            after = weigh(subject, prompts)
        draws = []
        for _ in range(controls):
            with zero_columns(subject, ranked.by_layer(ranked.matched(range(count), generator))):
                draws.append(weigh(subject, prompts))
        removals.append(_removal(count, prompts, before, after, draws, len(own), seed))
    known = mean_score(per_fact((before.odds[: len(own)] > 0).float(), own), "known before", better="lower", seed=seed)
    return ColumnSearch(ranked, enriched, known, tuple(removals), floor)


def find_lm_columns(
    subject: CausalLMSubject, concept: Concept, *, rate: float = 0.1, seed: int = 0
) -> tuple[Subspace, ...]:
    """The concept's columns that its answers need, by the first of the `LM_RANKINGS` that finds any; else empty.

    A concept none of whose tokens is its own can't be looked for by what columns say, and is not.
    One Subspace per column: `score` is the paired drop of the whole set, `scores` what ranked the column, with the
    median column's as control.
    """
    for by in LM_RANKINGS:
        try:
            search = search_lm_columns(subject, concept, LmRanking(by, rate=rate), seed=seed)
        except NoTokens:
            continue
        if search.chosen() is not None:
            return column_subspaces(subject, concept, search)
    return ()


def column_subspaces(subject: CausalLMSubject, concept: Concept, search: ColumnSearch) -> tuple[Subspace, ...]:
    """One Subspace per column of the chosen removal; none where there is none."""
    chosen, ranked = search.chosen(), search.ranked
    if chosen is None:
        return ()
    out, base_hash = [], subject.weight_hash()
    typical = float(ranked.scores.nan_to_num(neginf=0.0).median())
    for i in range(chosen.count):
        site, value = ranked.sites[i], float(ranked.scores[i])
        column = subject.matrix(matrix_site(site)).detach()[:, site.item, None].clone()
        score = Score(f"ranked by {ranked.effect}", value, value, value, 1, "", "higher", typical)
        own = Subspace(site, column, "parameter", chosen.drop, concept.name, "mlp_value", scores=(score,))
        out.append(replace(own, base_hash=base_hash))
    return tuple(out)


def _removal(
    count: int, asked: Sequence[Prompt], before: Weighed, after: Weighed, random: Sequence[Weighed], own: int, seed: int
) -> ColumnRemoval:
    """What was weighed of (n,) prompts, of which the first `own` are the concept's; `random` once per draw."""
    first, rest = asked[:own], asked[own:]

    def known(weighed: Weighed) -> tuple[Tensor, Tensor]:
        hit = (weighed.odds > 0).float()
        return per_fact(hit[:own], first), per_fact(hit[own:], rest)

    drops = torch.stack([w.right for w in random]).mean(0) - after.right
    odds = torch.stack([w.odds for w in random]).mean(0) - after.odds
    mine, theirs = per_fact(drops[:own], first).double(), per_fact(drops[own:], rest).double()
    generator = torch.Generator().manual_seed(seed)
    picks = [x[torch.randint(len(x), (1000, len(x)), generator=generator)].mean(1) for x in (mine, theirs)]
    low, high = (picks[0] - picks[1]).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    gap = float(mine.mean() - theirs.mean())
    spared, untouched = float(torch.stack([known(w)[0] for w in random]).mean()), float(known(before)[1].mean())
    ours, others = known(after)
    against = "against matched random columns"
    return ColumnRemoval(
        count,
        mean_score(mine, f"drop {against}", control=0.0, better="higher", unit="nats", seed=seed),
        Score("drop beyond other prompts'", gap, low, high, len(mine) + len(theirs), "nats", "higher", 0.0),
        mean_score(
            per_fact(odds[:own], first), f"drop of odds {against}", control=0.0, better="higher", unit="nats", seed=seed
        ),
        mean_score(ours, "known with columns zeroed", control=spared, better="lower", seed=seed),
        mean_score(others, "others known", control=untouched, better="higher", seed=seed),
    )
