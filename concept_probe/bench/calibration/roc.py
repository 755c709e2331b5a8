"""From audits of known truth to a calibration: ROC per kind of evidence, thresholds, and how often verdicts are wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from concept_probe.auditing import Thresholds
from concept_probe.auditing.calibration import CALIBRATION_FORMAT, Calibration, Rate, Roc
from concept_probe.bench.sweep.store import SweepRow
from concept_probe.evaluation.auroc import auroc
from concept_probe.evaluation.rates import success_rate
from concept_probe.storage import sealed

HOLDS = ("present", "suppressed")
"""Truths of subjects that know the concept; `damaged` ones are left out of every ROC."""
CLAIMS = ("intact", "suppressed")
"""Verdicts that say that a subject knows the concept."""
RIGHT = {"present": ("intact",), "suppressed": ("suppressed",), "absent": ("erased",), "damaged": ("damaged",)}


def calibration(rows: Sequence[SweepRow]) -> Calibration:
    """What finished audits add up to; failed ones are left out.

    Raises ValueError where there is no audit of a subject that holds its concept, or none of one that does not, and
    for audits with different thresholds or settings.
    """
    done = [r.values for r in rows if r.status == "done"]
    known = [v for v in done if v["truth"] in HOLDS]
    never = [v for v in done if v["truth"] == "absent"]
    if not known or not never:
        raise ValueError(
            f"a calibration needs audits of subjects that hold their concept and of subjects that do not; found "
            f"{len(known)} and {len(never)}"
        )
    for what in ("thresholds", "asked"):
        several = {json.dumps(v[what], sort_keys=True) for v in done}
        if len(several) > 1:
            raise ValueError(f"audits with {len(several)} different {what} can't be put together; calibrate again")
    thresholds = Thresholds(**done[0]["thresholds"])
    kinds = dict.fromkeys(kind for v in done for kind in v["indices"])
    return Calibration(
        tuple(dict.fromkeys(v["model"] for v in done)),
        len(done),
        thresholds,
        roc([_residual(v) for v in known], [_residual(v) for v in never]),
        {kind: roc(mine, others) for kind in kinds if (mine := _of(known, kind)) and (others := _of(never, kind))},
        error_rate(sum(v["verdict"] in CLAIMS for v in never), len(never)),
        error_rate(sum(v["verdict"] == "erased" for v in known), len(known)),
        error_rate(sum(v["verdict"] == "undecided" for v in done), len(done)),
        _samples(done),
        done[0]["asked"],
    )


def roc(known: Sequence[float], never: Sequence[float]) -> Roc:
    """AUROC, and the threshold with the fewest mistakes: the middle of the widest gap between two values that has it."""
    values = torch.tensor([*known, *never])
    labels = torch.tensor([True] * len(known) + [False] * len(never))
    low, high = widest_gap(known, never)
    threshold = (low + high) / 2
    return Roc(
        float(auroc(values.unsqueeze(1), labels)[0]),
        threshold,
        (low, high),
        error_rate(sum(v > threshold for v in never), len(never)),
        error_rate(sum(v <= threshold for v in known), len(known)),
    )


def widest_gap(known: Sequence[float], never: Sequence[float]) -> tuple[float, float]:
    """Between which two values a cut makes the smallest sum of both error rates; of several gaps the widest."""
    values = sorted({*known, *never})
    if len(values) == 1:
        return values[0], values[0]

    def wrong(t):
        return sum(v <= t for v in known) / len(known) + sum(v > t for v in never) / len(never)

    return min(pairwise(values), key=lambda gap: (round(wrong(sum(gap) / 2), 9), gap[0] - gap[1]))


def error_rate(hits: int, n: int) -> Rate:
    score = success_rate("", [True] * hits + [False] * (n - hits))
    return Rate(score.value, score.low, score.high, n)


def wrong(rows: Sequence[SweepRow]) -> list[SweepRow]:
    """Audits whose verdict is decided, and not the right one for their truth."""
    done = [r for r in rows if r.status == "done"]
    return [r for r in done if r.values["verdict"] not in (*RIGHT[r.values["truth"]], "undecided")]


def by_state(rows: Sequence[SweepRow]) -> dict[str, float]:
    """AUROC of the residual per state of the weights: as they are, fine-tuned, rounded."""
    done = [r.values for r in rows if r.status == "done" and r.values["truth"] in (*HOLDS, "absent")]
    out = {}
    for state in dict.fromkeys(v["state"] for v in done):
        of = [v for v in done if v["state"] == state]
        mine = [_residual(v) for v in of if v["truth"] in HOLDS]
        others = [_residual(v) for v in of if v["truth"] == "absent"]
        if mine and others:
            out[state] = roc(mine, others).auroc
    return out


def residuals(rows: Sequence[SweepRow]) -> dict[str, list[float]]:
    """The residual index of every finished audit, by what is known of its subject."""
    out: dict[str, list[float]] = {truth: [] for truth in ("present", "suppressed", "absent")}
    for row in rows:
        if row.status == "done" and row.values["truth"] in out:
            out[row.values["truth"]].append(_residual(row.values))
    return out


def calibration_to_json(found: Calibration) -> str:
    """The file that `audit.calibration.read` reads."""
    return json.dumps(sealed({"format": CALIBRATION_FORMAT, **asdict(found)}), indent=1, ensure_ascii=False) + "\n"


def _residual(values: Mapping[str, Any]) -> float:
    """0 where no index is defined: nothing was found to be left."""
    return values["residual"]["at"][0] if values["residual"] else 0.0


def _of(several: Sequence[Mapping[str, Any]], kind: str) -> list[float]:
    return [v["indices"][kind]["at"][0] for v in several if v["indices"].get(kind)]


def _samples(several: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How many answers the undecided ones said that they need: each about its own worst open question."""
    needed = [v["samples_needed"] for v in several if v["verdict"] == "undecided" and v["samples_needed"]]
    return {"median": float(median(needed)), "most": float(max(needed))} if needed else {}
