"""The audit of an erasure: five kinds of evidence, each against a control, and a verdict."""

from __future__ import annotations

from concept_probe.auditing.arm import Memory
from concept_probe.auditing.checks import UsedPrompts
from concept_probe.auditing.run import audit
from concept_probe.auditing.verdict import Thresholds, decide
from concept_probe.evaluation.bayesian import BayesianBootstrap, Draws

__all__ = ["BayesianBootstrap", "Draws", "Memory", "Thresholds", "UsedPrompts", "audit", "decide"]
