"""What is in doubt after a round: the measures whose answers could still change the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from concept_probe.auditing.evidence.finding import Evidence, joined_evidence
from concept_probe.auditing.evidence.indexed import may_gain_index
from concept_probe.auditing.pooling import WeighedKind
from concept_probe.auditing.verdict import Thresholds, decide
from concept_probe.evaluation.bayesian import BayesianBootstrap
from concept_probe.types import EvidenceKind, Score, Verdict

Gathered = Mapping[EvidenceKind, Mapping[str, Evidence]]
"""What each measure found, by its name, in its kind of evidence."""


def evidence_of(gathered: Gathered) -> Evidence:
    """All of it, in order."""
    return joined_evidence(found for of in gathered.values() for found in of.values())


def other_indices(gathered: Gathered) -> dict[EvidenceKind, list[Score]]:
    """By kind, every index but that of prompts that name the concept."""
    direct = evidence_of(gathered).direct
    return {k: [i for found in of.values() for i in found.indices if i is not direct] for k, of in gathered.items()}


def verdict_of(gathered: Gathered, thresholds: Thresholds, guarded: bool, error: float) -> Verdict:
    """What follows from it by now."""
    whole = evidence_of(gathered)
    others: Mapping[str, list[Score]] = {**other_indices(gathered)}
    return decide(whole.direct, others, whole.losses, thresholds, guarded=guarded, error=error)


def in_doubt(
    gathered: Gathered, verdict: Verdict, thresholds: Thresholds, bootstrap: BayesianBootstrap, guarded: bool = False
) -> tuple[str, ...]:  # fmt: skip
    """Names of the measures that could change the verdict with more answers, in the order of the evidence.

    Of an undecided one, those of what is open. Erased says something of every measure, so those are in doubt too that have
    no index yet and may get one. What is intact or suppressed is there whatever else is found, unless more is lost than
    may be; what is damaged is.
    """
    if verdict.name == "damaged":
        return ()
    if verdict.name in ("intact", "suppressed"):
        return tuple(_losses_open(gathered, thresholds))
    return tuple(dict.fromkeys(_open(gathered, thresholds, bootstrap, guarded)))


def _losses_open(gathered: Gathered, t: Thresholds) -> Iterator[str]:
    for of in gathered.values():
        yield from (name for name, e in of.items() if any(s.value > t.damage >= s.low for s in e.losses))


def _open(gathered: Gathered, t: Thresholds, bootstrap: BayesianBootstrap, guarded: bool) -> Iterator[str]:
    def may_gain(found: Evidence) -> bool:
        return any(may_gain_index(f, bootstrap, t.gap) for f in found.findings)

    yield from _losses_open(gathered, t)
    direct, indices = evidence_of(gathered).direct, other_indices(gathered)
    for kind, of in gathered.items():
        weighed = WeighedKind.of(kind, indices[kind], t.residual, bootstrap.error) if indices[kind] else None
        unsure = weighed is not None and bool(weighed.unsure)
        for name, found in of.items():
            if found.direct is not None:
                if any(found.direct.low <= edge <= found.direct.high for edge in (t.residual, t.kept)):
                    yield name
            elif direct is None:  # nothing else is asked before it is known that the model knew the concept
                if any(f.evidence == "behaviour" and f.split == "target" for f in found.findings) and may_gain(found):
                    yield name
            elif direct.low <= t.residual and not guarded and ((unsure and found.indices) or may_gain(found)):
                yield name  # where it is above, or no weight was changed, prompts that name it say what it is
