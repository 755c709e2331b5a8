"""What is left of a concept after an erasure: five kinds of evidence, each against a control, and a verdict.

`audit` asks the model as it was, the erased model and a never-taught twin the same `Questions`, hands the outcome to the
measures of `evidence.EVIDENCE`, and lets `verdict` decide. How much is asked is one value, `AuditPlan`; an `Auditor`
audits by one plan and keeps what was measured of models in the same state, so that several audits of one model measure
it and the twin once.

The room promises: test prompts alone, none of which was fitted or selected on; the erasure is on in everything that is
measured of it, attacks included; every number with its control, its interval and what was counted; the same audit, the
same numbers; no weight is changed, and that is checked. How often verdicts are wrong is in `calibration`. A new measure
is a file of `evidence` and a line there.
"""

from __future__ import annotations

from concept_probe.auditing.cache import MeasurementCache
from concept_probe.auditing.checks import UsedPrompts
from concept_probe.auditing.plan import AuditPlan
from concept_probe.auditing.rounds.limits import AuditRounds
from concept_probe.auditing.run import Auditor, audit
from concept_probe.auditing.verdict import Thresholds, decide

__all__ = ["AuditPlan", "AuditRounds", "Auditor", "MeasurementCache", "Thresholds", "UsedPrompts", "audit", "decide"]
