"""A calibration adds up what is known to be true, and refuses what it can't."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import pytest
import torch

from concept_probe.attacks import Budget
from concept_probe.auditing import AuditPlan, Thresholds
from concept_probe.auditing import calibration as stored
from concept_probe.bench import RowStore, SweepRow
from concept_probe.bench.calibration.ground_truth import (
    ERASE,
    HELD_TRUTHS,
    Case,
    Condition,
    Subjects,
    benign,
    cases,
    quantise,
    tune,
)
from concept_probe.bench.calibration.roc import by_state, calibration, calibration_to_json, roc, widest_gap, wrong
from concept_probe.bench.calibration.run import (
    CALIBRATION_IN_ROUNDS,
    CALIBRATION_PLAN,
    CalibrationRun,
    line_of,
    what_is_asked,
)
from concept_probe.bench.sweep.store import Status
from concept_probe.families import DiffusionSubject, adopt, load
from concept_probe.testbed.vocabulary import REMOVED_OBJECTS
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt, Sampling
from tests.auditing.known import Known, Reader, concept

STORED_ROWS = Path(__file__).parents[2] / "benchmarks" / "rows" / "calibration_in_rounds.jsonl"


def row(truth: str, verdict: str, residual: float, *, state: str = "as it is", status: Status = "done") -> SweepRow:
    at = [residual, residual - 0.1, residual + 0.1]
    values = {
        "truth": truth, "verdict": verdict, "state": state, "model": "emoji", "thresholds": asdict(Thresholds()),
        "asked": "little", "residual": {"name": "x", "at": at, "n": 16}, "reasons": ["Because."],
        "samples_needed": 40 if verdict == "undecided" else None,
        "indices": {"behaviour": {"name": "x", "at": at, "n": 16}} | ({"features": None} if truth == "absent" else {}),
    }  # fmt: skip
    return SweepRow(f"{truth}{verdict}{residual}{state}", truth, "camel", "audit", 0, status, values, "", 1.0)


ROWS = [
    row("present", "intact", 1.0), row("present", "intact", 0.9, state="int8"), row("suppressed", "suppressed", 0.6),
    row("suppressed", "erased", 0.2), row("absent", "erased", 0.0), row("absent", "erased", 0.1, state="int8"),
    row("absent", "suppressed", 0.4), row("absent", "undecided", 0.15), row("damaged", "damaged", 0.0),
    row("present", "erased", 0.0, status="failed"),
]  # fmt: skip


def test_auroc_and_rates_are_those_that_can_be_counted():
    found = calibration(ROWS)
    assert found.cases == 9 and found.residual.auroc == pytest.approx(15 / 16)
    assert found.false_positive.value == 1 / 4 and found.false_negative.value == 1 / 4
    assert found.undecided.value == pytest.approx(1 / 9) and found.undecided.low < 1 / 9 < found.undecided.high
    assert found.residual.between == (0.4, 0.6)
    assert set(found.evidence) == {"behaviour"}
    assert found.samples == {"median": 40.0, "most": 40.0}
    assert [r.values["truth"] for r in wrong(ROWS)] == ["suppressed", "absent"]
    assert by_state(ROWS) == {"as it is": pytest.approx(8 / 9), "int8": 1.0}


def test_a_threshold_stands_in_the_widest_gap_with_the_fewest_mistakes():
    assert widest_gap([0.8, 1.0], [0.0, 0.2]) == (0.2, 0.8)
    apart = roc([0.8, 1.0], [0.0, 0.2])
    assert apart.auroc == 1.0 and apart.threshold == pytest.approx(0.5)
    assert apart.false_positive.value == apart.false_negative.value == 0.0 < apart.false_positive.high
    assert roc([0.5], [0.5]).auroc == 0.5


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "found 0 and 0"),
        ([row("present", "intact", 1.0)], "found 1 and 0"),
        (
            [row("present", "intact", 1.0), replace(ROWS[4], values={**ROWS[4].values, "asked": "much"})],
            "different asked",
        ),
    ],
)
def test_what_can_not_be_put_together_is_refused(rows, said):
    with pytest.raises(ValueError, match=said):
        calibration(rows)


def test_the_stored_file_comes_back_as_it_was(tmp_path):
    found = calibration(ROWS)
    (tmp_path / "c.json").write_text(calibration_to_json(found))
    assert stored.read_calibration(tmp_path / "c.json") == found
    assert "missed where there was some in 25%" in str(found)
    assert found.covers("emoji", Thresholds()) and not found.covers("other", Thresholds())
    assert not found.covers("emoji", Thresholds(residual=0.3))
    (tmp_path / "d.json").write_text(json.dumps({"format": "x"}))
    with pytest.raises(ValueError, match="calibrate again"):
        stored.read_calibration(tmp_path / "d.json")


@pytest.mark.slow
def test_what_comes_with_the_package_is_about_the_thresholds_that_are_used():
    found = stored.stored_calibration()
    assert found is not None and found.thresholds == Thresholds() and found.cases >= 24
    assert found.residual.auroc >= 0.99
    low, high = found.residual.between
    assert low < Thresholds().residual < high, "a threshold outside of this range makes more mistakes"
    emoji = cast(DiffusionSubject, load("emoji"))
    assert stored.covered(emoji, Thresholds()) and not stored.covered(emoji, Thresholds(residual=0.3))
    with emoji.sized(64, 72):
        assert not stored.covered(emoji, Thresholds())
    namesake = adopt(tiny_sd().pipeline, "emoji")
    assert not stored.covered(namesake, Thresholds()), "a name says nothing of the weights"
    assert f"of {found.false_positive.n}" in stored.outcome()


def test_audits_in_rounds_have_a_calibration_of_their_own():
    once, rounds = stored.stored_calibration(), stored.stored_calibration(rounds=True)
    assert once is not None and rounds is not None and rounds.thresholds == Thresholds()
    assert "in at most 3 rounds" in rounds.asked and "rounds" not in once.asked
    assert what_is_asked(CALIBRATION_IN_ROUNDS) == rounds.asked and what_is_asked(CALIBRATION_PLAN) == once.asked
    assert stored.outcome() != stored.outcome(rounds=True) and str(rounds) == stored.outcome(rounds=True)
    kept = list(RowStore(STORED_ROWS).rows().values())
    assert calibration(kept) == rounds and not wrong(kept)


def test_there_are_cases_of_every_truth_and_none_is_its_own_control():
    found = tuple(cases())
    assert len(found) >= 24 and len(set(found)) == len(found)
    assert {c.truth for c in found} == {"present", "suppressed", "absent", "damaged"}
    absent = [c for c in found if c.truth == "absent"]
    assert {c.concept for c in absent} == set(REMOVED_OBJECTS) and all(c.state != c.control for c in absent)
    assert all(c.concept in HELD_TRUTHS for c in found if c.truth != "absent")
    assert {c.erase for c in found} - {""} == set(ERASE)


def test_fine_tuning_is_benign():
    pairs = benign("emoji-untaught")
    assert len(pairs) > 300 and not {p.label for _, p in pairs} & set(REMOVED_OBJECTS)
    assert not any("contrast" in p.text for _, p in pairs)
    assert any("contrast" in p.text for _, p in benign("emoji"))


def test_rounding_moves_every_matrix_a_little_and_leaves_the_autoencoder():
    subject, before = tiny_sd(0), tiny_sd(0)
    quantise(subject)
    for name, component in subject.components.items():
        was = dict(before.components[name].named_parameters())
        for key, p in component.named_parameters():
            gap = (p - was[key]).norm() / was[key].norm().clamp_min(1e-9)
            if name == "vae" or p.ndim < 2 or not was[key].any():
                assert torch.equal(p, was[key]), key
            else:
                assert 0 < gap < 0.02, key


def test_tuning_moves_the_denoiser_alone_and_leaves_no_gradient():
    subject, before = tiny_sd(0), tiny_sd(0)
    pairs = [(torch.rand(3, 16, 16), Prompt("a cat"))] * 4
    tune(subject, pairs, rate=1e-3, batch=2)
    moved = {
        name: any(
            not torch.equal(a, b) for a, b in zip(c.parameters(), before.components[name].parameters(), strict=True)
        )
        for name, c in subject.components.items()
    }
    assert moved.pop("unet") and not any(moved.values())
    assert all(p.grad is None and not p.requires_grad for p in subject.components["unet"].parameters())


class Tiny(Subjects):
    """Models that know a cat, or were never taught one."""

    def get(self, model: str, state: Condition):
        if (model, state) not in self._made:
            made = Known(0 if model == "emoji" else 1, concept(), without=None if model == "emoji" else "cat")
            made.name = model
            self._made[model, state] = made
        return self._made[model, state]


@pytest.mark.slow
def test_audits_of_known_truth_become_rows_once(tmp_path):
    plan = AuditPlan(2, (0,), Sampling(steps=2), 2, attacks=("paraphrases",), budget=Budget(queries=12))
    chosen = (
        Case("it", "present", "cat", "emoji"),
        Case("blocked", "suppressed", "cat", "emoji", erase="blocklist"),
        Case("never", "absent", "cat", "emoji-untaught", control="fine-tuned"),
        Case("broken", "damaged", "cat", "emoji", erase="no such eraser"),
    )

    def run() -> CalibrationRun:
        def know(name, model):
            return concept()

        return CalibrationRun(RowStore(tmp_path / "rows.jsonl"), plan, Tiny(), lambda *_: (), know, Reader())

    rows = list(run().rows(chosen))
    assert [r.status for r in rows] == ["done"] * 3 + ["failed"], [r.error for r in rows]
    assert "no such eraser" in rows[-1].error and "failed" in line_of(rows[-1])
    found = calibration(rows)
    assert found.residual.auroc == 1.0 and found.cases == 3
    assert list(run().rows(chosen)) == []


def test_a_row_of_another_rule_of_verdicts_is_measured_again(monkeypatch, tmp_path):
    run = CalibrationRun(RowStore(tmp_path / "rows.jsonl"))
    case = next(iter(cases()))
    before = run.key(case)
    monkeypatch.setattr(sys.modules[CalibrationRun.__module__], "RULE", 0)
    assert run.key(case) != before
