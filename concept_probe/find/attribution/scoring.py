"""From values of coalitions to a score for each player, with an interval over prompts, seeds and what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.evaluation.bootstrap import bootstrap_counts
from concept_probe.find.attribution.summaries import Design, Summary
from concept_probe.types import Query

RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class PlayerDraws:
    """What a summary gives for every player, and for bootstrap samples of the queries and of what was drawn."""

    value: Float[Tensor, "m"]
    draws: Float[Tensor, "m g"]
    n: int
    """How many were resampled: prompts, or queries where all are of one prompt."""

    def interval(self, player: int) -> tuple[float, float]:
        low, high = self.draws[player].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return low, high


def groups_of(queries: Sequence[Query]) -> Tensor:
    """(n,) the number of the fact that each query asks for: its wordings and seeds say less than as many facts.

    Where all ask for one, each is a group of its own.
    """
    facts = [q.prompt.fact or q.prompt.text for q in queries]
    number = {fact: i for i, fact in enumerate(dict.fromkeys(facts))}
    return torch.arange(len(queries)) if len(number) == 1 else torch.tensor([number[fact] for fact in facts])


def resampled(groups: Tensor, draws: int, seed: int) -> Float[Tensor, "n g"]:
    """How much each query counts in each bootstrap sample of the groups; adds up to 1 in each."""
    counts = bootstrap_counts(int(groups.max()) + 1, draws, seed)[:, groups].mT
    return counts / counts.sum(0)


def averaged(values: Float[Tensor, "c *m n"], weights: Float[Tensor, "n g"]) -> Float[Tensor, "c *m g"]:
    """`values @ weights`; rows that are equal give equal rows to the bit, so that what changes nothing is worth exactly 0."""
    flat = values.reshape(-1, values.shape[-1])
    found, place = torch.unique(flat, dim=0, return_inverse=True)
    return (found @ weights)[place].reshape(*values.shape[:-1], weights.shape[1])


def summarised(
    summary: Summary, design: Design, values: Float[Tensor, "c *m n"], groups: Tensor, seed: int = 0
) -> PlayerDraws:  # fmt: skip
    """What each player is worth by `values` of every coalition for n queries, and how sure that is.

    Queries are resampled by their groups, and draws of coalitions with them, where there is more than one.
    """
    n, r = values.shape[-1], design.replicates
    values = values.double()
    of_queries = torch.cat([torch.full((n, 1), 1 / n, dtype=torch.float64), resampled(groups, RESAMPLES, seed)], 1)
    of_draws = torch.full((r, RESAMPLES + 1), 1 / r, dtype=torch.float64)
    if r > 1:
        of_draws[:, 1:] = bootstrap_counts(r, RESAMPLES, seed + 1).mT / r
    solved = summary.solve(design, averaged(values, of_queries), of_draws)
    return PlayerDraws(solved[:, 0], solved[:, 1:], int(groups.max()) + 1)
