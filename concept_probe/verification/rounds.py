"""The rounds of an audit, written beside its observations, so that every look can be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from concept_probe.storage.schema import Fields, Flag, Free, Items, Maybe, Number, Text, Whole
from concept_probe.types import Finding, Observed, ObservedRound, Score, Verdict
from concept_probe.verification.observations import read_sources, told_sources

ROUNDS = Fields(
    {
        "looks": Whole(1),
        "stopped": Text(),
        "error": Number(0, 1),
        "careful": Flag(),
        "taken": Items(
            Fields(
                {
                    "number": Whole(1),
                    "error": Number(0, 1),
                    "resamples": Whole(100),
                    "verdict": Text(),
                    "reasons": Items(Text()),
                    "samples_needed": Maybe(Whole()),
                    "doubt": Items(Text()),
                    "answers": Whole(),
                    "findings": Items(Free()),
                }
            ),
            least=1,
        ),
    }
)
"""What stands in a folder's observations of an audit in rounds."""


def told_rounds(observed: Observed, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The rounds as JSON; of each finding what it was measured on and made of, in names of `tensors`. Those of the last
    round are the report's, and stand there."""
    return {
        "looks": observed.looks,
        "stopped": observed.stopped,
        "error": observed.error,
        "careful": observed.careful,
        "taken": [
            {
                "number": r.number,
                "error": r.error,
                "resamples": r.resamples,
                "verdict": r.verdict.name,
                "reasons": list(r.verdict.reasons),
                "samples_needed": r.verdict.samples_needed,
                "doubt": list(r.doubt),
                "answers": r.answers,
                "findings": [] if r is observed.rounds[-1] else _findings(r.findings, tensors),
            }
            for r in observed.rounds
        ],
    }


def _findings(findings: Sequence[Finding], tensors: dict[str, Tensor]) -> list[dict[str, Any]]:
    return [
        {
            "evidence": f.evidence,
            "metric": f.metric,
            "split": f.split,
            "index": None if f.index is None else f.index.name,
            "sources": told_sources(f.sources, tensors),
        }
        for f in findings
        if f.sources is not None and f.sources.after is not None
    ]


def read_rounds(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `told_rounds` told, as fields of an `Observed`; numbers of findings are left for whoever makes them again."""
    return {
        **{name: told[name] for name in ("looks", "stopped", "error", "careful")},
        "rounds": tuple(
            ObservedRound(
                r["number"],
                r["error"],
                r["resamples"],
                tuple(_finding(f, tensors) for f in r["findings"]),
                Verdict(r["verdict"], tuple(r["reasons"]), samples_needed=r["samples_needed"]),
                tuple(r["doubt"]),
                r["answers"],
            )
            for r in told["taken"]
        ),
    }


def _finding(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Finding:
    index = None if told["index"] is None else Score(told["index"], 0.0, 0.0, 0.0, 1)
    sources = read_sources(told["sources"], tensors)
    return Finding(told["evidence"], told["metric"], told["split"], 0, 0, None, 0, 0, 0, index=index, sources=sources)
