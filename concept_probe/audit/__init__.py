"""The audit of an erasure: five kinds of evidence, each against a control, and a verdict."""

from __future__ import annotations

from concept_probe.audit.arms import Memory
from concept_probe.audit.bootstrap import Bootstrap, Draws
from concept_probe.audit.checks import UsedPrompts
from concept_probe.audit.run import audit
from concept_probe.audit.verdict import Thresholds, decide

__all__ = ["Bootstrap", "Draws", "Memory", "Thresholds", "UsedPrompts", "audit", "decide"]
