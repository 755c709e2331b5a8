"""Judging: whether answers show a concept, how often, with what interval, and which of several erasures is best.

Rooms that find, erase, attack, audit and compare take their rates, intervals, tests and thinned prompts from here, so
that one number means the same in all of them. Nothing here changes a subject. An answer that can't be judged counts
against whoever it would flatter (`rates`); whatever draws is seeded, and the same seed gives the same numbers.
"""

from __future__ import annotations

from concept_probe.evaluation.auroc import auroc, auroc_scores
from concept_probe.evaluation.bayesian import BayesianBootstrap, Draws
from concept_probe.evaluation.bootstrap import mean_score
from concept_probe.evaluation.intervals import newcombe, wilson
from concept_probe.evaluation.panel import Panel, panel
from concept_probe.evaluation.rates import per_fact, succeeded, success_of, success_rate
from concept_probe.evaluation.recogniser_rates import RecogniserRates, recogniser_rates
from concept_probe.evaluation.trials import judge_answers

__all__ = [
    "BayesianBootstrap",
    "Draws",
    "Panel",
    "RecogniserRates",
    "auroc",
    "auroc_scores",
    "judge_answers",
    "mean_score",
    "newcombe",
    "panel",
    "per_fact",
    "recogniser_rates",
    "succeeded",
    "success_of",
    "success_rate",
    "wilson",
]
