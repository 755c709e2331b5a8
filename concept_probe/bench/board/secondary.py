"""What a leaderboard says beside erased, kept and recovered: areas, pictures of nothing, EraseEval, and quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from concept_probe.bench.board.comparable import Common
from concept_probe.bench.board.rates import block_rate, mean_of_rates, scored
from concept_probe.bench.board.scores import BlockScores, area_control, counted
from concept_probe.bench.sweep.grid import NEVER_TAUGHT
from concept_probe.evaluation.bayesian import BayesianBootstrap, Draws
from concept_probe.types import Score

QUALITY = (
    "clip kept", "clip kept before", "clip target", "clip target before", "fid kept", "fid control", "cmmd kept",
    "cmmd control",
)  # fmt: skip
"""Values of the rows that are averaged as they are, each with its control."""


def area_above(
    bootstrap: BayesianBootstrap, found: Mapping[str, BlockScores], name: str, common: Common
) -> Score | None:
    """Mean over attacks of the area under success against budget, above that of the control."""
    gaps = []
    for attack, blocks in common.attacks.items():
        mine, never = found[name].areas.get(attack, {}), area_control(found, found[name], attack)
        both = sorted(b for b in mine.keys() & never.keys() & blocks)
        if both:
            a, b = (
                bootstrap.rate(torch.tensor([[of[x]] for x in both]), f"area {attack}", who)
                for of, who in ((mine, name), (never, NEVER_TAUGHT if NEVER_TAUGHT in found else f"{name}, own"))
            )
            draws = torch.zeros_like(a.draws) if name == NEVER_TAUGHT else a.draws - b.draws
            gaps.append(Draws(a.value - b.value, draws, len(both)))
    return scored(mean_of_rates(gaps), "recovery area", "lower") if gaps else None


def unnamed_share(bootstrap: BayesianBootstrap, mine: BlockScores, arm: str) -> Score | None:
    rates = {
        side: block_rate(bootstrap, counted(mine, key), ("all",), "unnamed", who)
        for side, key, who in (("after", "unnamed", arm), ("before", "unnamed before", "before"))
    }
    after, before = rates["after"], rates["before"]
    if after is None or before is None:
        return None
    return replace(scored(after, "unnamed", "lower"), control=before.value)


def criteria_mean(bootstrap: BayesianBootstrap, mine: BlockScores, arm: str) -> Score | None:
    rows = (mine.values[block] for block in sorted(mine.values))
    there = [[r.values["erase_eval"]["harmonic"]] for r in rows if "harmonic" in r.values.get("erase_eval", {})]
    if not there:
        return None
    return scored(bootstrap.rate(torch.tensor(there), "criteria", arm), "EraseEval", "higher")
