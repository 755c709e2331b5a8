"""The audit of an erasure: five kinds of evidence, each against a control, and a verdict."""

from __future__ import annotations

from concept_probe.auditing.arm import Memory
from concept_probe.auditing.checks import UsedPrompts
from concept_probe.auditing.run import audit
from concept_probe.auditing.verdict import Thresholds, decide
from concept_probe.evaluation.intervals import Bootstrap, Draws

__all__ = ["Bootstrap", "Draws", "Memory", "Thresholds", "UsedPrompts", "audit", "decide"]
