"""Which findings have an index wherever it is defined, and which may get one when more is asked."""

from __future__ import annotations

import torch

from concept_probe.auditing.evidence.behaviour import DETECTION
from concept_probe.auditing.evidence.likelihood import NAMES_AND_UNITS
from concept_probe.auditing.evidence.parameters import SHARE_LEFT
from concept_probe.auditing.evidence.patching import CARRIED
from concept_probe.auditing.evidence.probing import OWN_PROBE, OWN_PROBE_SAME_WORDS
from concept_probe.evaluation.bayesian import BayesianBootstrap, may_have_index
from concept_probe.evaluation.sources import draws_again
from concept_probe.types import FORGET_KINDS, Finding, FindingSources, NumberSource

WITH_INDEX = {m.name for m in (DETECTION, CARRIED, OWN_PROBE, OWN_PROBE_SAME_WORDS, SHARE_LEFT)}
"""Metrics whose findings have an index wherever it is defined."""
LIKELIHOODS = {name for name, _ in NAMES_AND_UNITS.values()}


def belongs_to_an_index(finding: Finding, sources: FindingSources) -> bool:
    """Whether the audit would give one: not of neighbours, and not where the same was observed before and after, which it
    may leave out as out of reach."""
    if finding.index is not None:
        return True
    rate = sources.after is not None and sources.after.how == "rate"
    if finding.metric not in WITH_INDEX and not (rate and finding.evidence in ("features", "recovery")):
        return False
    return sources.after is not None and sources.before is not None and not _same(sources.before, sources.after)


def may_gain_index(finding: Finding, bootstrap: BayesianBootstrap, gap: float) -> bool:
    """Whether a finding without an index may have one when more is asked: its before − never taught may be `gap`, as far as
    is known by now."""
    of = finding.sources
    if finding.index is not None or of is None or of.before is None or of.after is None or of.control is None:
        return False
    likely = finding.metric in LIKELIHOODS and finding.split in FORGET_KINDS
    always = likely or finding.metric in (DETECTION.name, SHARE_LEFT.name)  # these are never out of an erasure's reach
    if not always and not belongs_to_an_index(finding, of):
        return False
    return may_have_index(draws_again(of.before, bootstrap), draws_again(of.control, bootstrap), gap)


def _same(a: NumberSource, b: NumberSource) -> bool:
    """Whether two numbers were made of observations that are the same to the bit."""
    return (
        len(a.tensors) == len(b.tensors)
        and len(a.parts) == len(b.parts)
        and all(map(torch.equal, a.tensors, b.tensors))
        and all(map(_same, a.parts, b.parts))
    )
