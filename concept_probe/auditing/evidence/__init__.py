"""The evidence of an audit: five kinds, each a tuple of measures that look in different ways.

A `Measure` (in `finding`) says what it is called, on which subjects it works and what it needs of an audit; it is called
with the audit's `Context` and returns `Evidence`, frozen: findings, what could not be measured, and what is drawn. Whoever
walks `EVIDENCE` knows no measure by name.

A measure promises: every finding has its control and its interval, made by `compare`, the one place where findings are
made; an index only where before − never taught is clear; what it puts into a model comes out again; draws of chance are
keyed or seeded by the plan, so that the same audit gives the same numbers; what is lacking is one sentence of
`not_measured`, and no error.

To add one: a file with a function from `Context` to `Evidence`, its `Metric`s, and a `Measure` at its end; its line here;
and a sentence for each metric in `report.glossary`. What every arm has to be asked for it, while its erasure is on, goes
into `auditing.observe`; what is asked of one arm alone goes through `context.cache`.
"""

from __future__ import annotations

from collections.abc import Mapping

from concept_probe.auditing.evidence.behaviour import BEHAVIOUR
from concept_probe.auditing.evidence.depth import DEPTH_OF_ERASURE
from concept_probe.auditing.evidence.features import ACTIVATION_RANGE, FEATURE_FIRING
from concept_probe.auditing.evidence.finding import Evidence, Measure
from concept_probe.auditing.evidence.fluency import FLUENCY
from concept_probe.auditing.evidence.likelihood import LIKELIHOOD
from concept_probe.auditing.evidence.parameters import VECTOR_CHANGES, VECTORS_LEFT
from concept_probe.auditing.evidence.patching import PATCHING
from concept_probe.auditing.evidence.probing import PROBING
from concept_probe.auditing.evidence.promoted_tokens import PROMOTED_TOKENS
from concept_probe.auditing.evidence.recovery import RECOVERY
from concept_probe.auditing.evidence.vectors_put_back import VECTORS_PUT_BACK
from concept_probe.types import EvidenceKind

EVIDENCE: Mapping[EvidenceKind, tuple[Measure, ...]] = {
    "behaviour": (*BEHAVIOUR, LIKELIHOOD, FLUENCY),
    "representation": (PROBING, PATCHING, DEPTH_OF_ERASURE),
    "parameters": (VECTOR_CHANGES, PROMOTED_TOKENS, VECTORS_LEFT, VECTORS_PUT_BACK),
    "features": (FEATURE_FIRING, ACTIVATION_RANGE),
    "recovery": (RECOVERY,),
}
"""Kind of evidence to its measures, in the order in which a report has them."""

__all__ = ["EVIDENCE", "Evidence", "Measure"]
