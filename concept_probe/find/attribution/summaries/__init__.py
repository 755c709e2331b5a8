"""Ways to share what the players of a game do together among them. One more is a class and a line in `SUMMARIES`."""

from __future__ import annotations

from concept_probe.find.attribution.summaries.banzhaf import Banzhaf
from concept_probe.find.attribution.summaries.gradients import IntegratedGradients
from concept_probe.find.attribution.summaries.kernel import Kernel
from concept_probe.find.attribution.summaries.one_at_a_time import Alone, LeaveOneOut
from concept_probe.find.attribution.summaries.shapley import Shapley
from concept_probe.find.attribution.summaries.sobol import Sobol
from concept_probe.find.attribution.summaries.summary import Design, Drawn, Summary
from concept_probe.registry import Registry

SUMMARIES: Registry[type[Summary]] = Registry(
    "summaries",
    {kind.name: kind for kind in (LeaveOneOut, Alone, Shapley, Banzhaf, Kernel, Sobol, IntegratedGradients)},
)

__all__ = [
    "SUMMARIES", "Alone", "Banzhaf", "Design", "Drawn", "IntegratedGradients", "Kernel", "LeaveOneOut", "Shapley", "Sobol",
    "Summary",
]  # fmt: skip
