"""The words of the project as types: frozen, small, and free of every library but torch."""

from __future__ import annotations

from concept_probe.types.boards import Difference, Leaderboard, Standing
from concept_probe.types.catalogue import Catalogue, Example, FeatureEntry
from concept_probe.types.codes import Codec, Codes
from concept_probe.types.erasures import Erasure
from concept_probe.types.evidence import Score, Subspace, unit
from concept_probe.types.places import BRANCHES, TOKEN_KINDS, Branch, Moment, Site
from concept_probe.types.prompts import (
    FORMS,
    KINDS,
    SPLITS,
    Concept,
    Form,
    Kind,
    Prompt,
    Query,
    Sampling,
    Split,
    Splits,
    texts,
)
from concept_probe.types.recognition import AnswerReader, Guide, Looks, Recogniser, Trial
from concept_probe.types.reports import (
    Curve,
    EvidenceKind,
    Finding,
    Picture,
    Report,
    TraceMap,
    Verdict,
    VerdictName,
    Written,
)

__all__ = [
    "BRANCHES",
    "FORMS",
    "KINDS",
    "SPLITS",
    "TOKEN_KINDS",
    "AnswerReader",
    "Branch",
    "Catalogue",
    "Codec",
    "Codes",
    "Concept",
    "Curve",
    "Difference",
    "Erasure",
    "EvidenceKind",
    "Example",
    "FeatureEntry",
    "Finding",
    "Form",
    "Guide",
    "Kind",
    "Leaderboard",
    "Looks",
    "Moment",
    "Picture",
    "Prompt",
    "Query",
    "Recogniser",
    "Report",
    "Sampling",
    "Score",
    "Site",
    "Split",
    "Splits",
    "Standing",
    "Subspace",
    "TraceMap",
    "Trial",
    "Verdict",
    "VerdictName",
    "Written",
    "texts",
    "unit",
]
