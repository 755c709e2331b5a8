"""A written audit says what it follows from, and whatever is altered in it is found."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from concept_probe.attacks import Budget
from concept_probe.auditing import AuditPlan, audit
from concept_probe.cli import app
from concept_probe.erasers import Blocklist
from concept_probe.report import from_json, to_json
from concept_probe.storage import (
    CorruptFile,
    MissingFile,
    WrongFile,
    file_sha256,
    read_json,
    read_tensors,
    write_sealed,
    write_sealed_json,
)
from concept_probe.types import Report, Sampling
from concept_probe.verification import read_bundle, verify, write_bundle
from concept_probe.verification.bundle import OBSERVATIONS, TENSORS
from tests.auditing import known, language_cases

pytestmark = pytest.mark.slow
PLAN = AuditPlan(
    sampling=Sampling(steps=2, guidance=1.0, batch=32), seeds=(0, 1), prompts=6, fit_images=2, resamples=100,
    attacks=("paraphrases",), budget=Budget(queries=8, gradient_steps=2, examples=2),
)  # fmt: skip


SEEDS = [*range(20), *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(20, 100))]


@pytest.fixture(scope="module")
def made() -> Report:
    concept = known.concept()
    subject, twin = known.Known(0, concept), known.Known(1, concept, without="cat")
    guard = Blocklist()(subject, concept)
    return audit(subject, guard, concept, twin=twin, recogniser=known.Reader(), plan=PLAN)


@pytest.fixture(scope="module")
def written(made, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    write_bundle(made, folder)
    return folder


def failures(folder: Path) -> list[str]:
    return [f"{c.what}: {c.said}" for c in verify(folder) if c.outcome == "fails"]


def is_found_out(folder: Path) -> bool:
    try:
        return bool(failures(folder))
    except (CorruptFile, WrongFile, MissingFile):
        return True


def resealed(folder: Path, name: str) -> None:
    """What somebody does who alters a file and makes the hashes fit."""
    told = read_json(folder / OBSERVATIONS, "")
    told["files"][name] = file_sha256(folder / name)
    write_sealed_json(folder / OBSERVATIONS, {k: v for k, v in told.items() if k != "seal"})


def test_an_untouched_audit_holds_and_says_what_it_can_not_know(made, written):
    checks = verify(written)
    assert not failures(written)
    assert sum(c.outcome == "holds" for c in checks) > 20
    assert any("needs the model" in c.said for c in checks if c.outcome == "not checked")
    read = read_bundle(written)
    assert made.observed is not None
    assert read.report == made and dataclasses.asdict(read.observed) == dataclasses.asdict(made.observed)
    done = CliRunner().invoke(app, ["verify", str(written)])
    assert done.exit_code == 0 and "checks hold" in done.output


def test_a_language_models_audit_holds_too(tmp_path):
    subject = language_cases.taught()
    write_bundle(audit(subject, None, language_cases.CONCEPT, plan=language_cases.PLAN), tmp_path)
    assert not failures(tmp_path)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_changed_byte_anywhere_is_found(seed, written, tmp_path):
    draw, folder = random.Random(seed), tmp_path / "copy"
    shutil.copytree(written, folder)
    name = draw.choice(sorted(p.name for p in folder.iterdir()))
    data = bytearray((folder / name).read_bytes())
    place = draw.randrange(len(data))
    data[place] ^= draw.randrange(1, 256)
    if draw.random() < 0.2:
        del data[place:]
    (folder / name).write_bytes(bytes(data))
    assert is_found_out(folder), (name, place)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_somebody_alters_with_care_is_found(seed, written, tmp_path):
    """A number, a reason, an answer or an observation, with every seal and hash made to fit."""
    draw, folder = random.Random(seed), tmp_path / "copy"
    shutil.copytree(written, folder)
    alter = draw.choice((_a_number, _the_verdict, _an_answer, _an_observation, _a_rule, _what_it_is_made_of, _a_kind))
    alter(folder, draw)
    assert failures(folder), alter


def _with_report(folder: Path, report: Report) -> None:
    from concept_probe.report import to_html, to_markdown

    for name, text in (
        ("report.json", to_json(report)),
        ("report.html", to_html(report)),
        ("report.md", to_markdown(report)),
    ):
        (folder / name).write_text(text, encoding="utf-8")
        resealed(folder, name)


def _report(folder: Path) -> Report:
    return from_json((folder / "report.json").read_text(encoding="utf-8"))


def _a_number(folder: Path, draw: random.Random) -> None:
    report = _report(folder)
    known_ = [i for i, s in enumerate(read_bundle(folder).sources) if s is not None and s.after is not None]
    place = draw.choice(known_)
    finding = report.findings[place]
    name = draw.choice(["after", "low", "high", "n"])
    changed = dataclasses.replace(finding, **{name: getattr(finding, name) + (1 if name == "n" else 0.01)})
    if finding.index is not None and draw.random() < 0.5:
        changed = dataclasses.replace(
            finding, index=dataclasses.replace(finding.index, value=finding.index.value - 0.1)
        )
    findings = (*report.findings[:place], changed, *report.findings[place + 1 :])
    _with_report(folder, dataclasses.replace(report, findings=findings))


def _the_verdict(folder: Path, draw: random.Random) -> None:
    report = _report(folder)
    verdict = draw.choice([
        dataclasses.replace(report.verdict, name="erased"),
        dataclasses.replace(report.verdict, reasons=("Nothing was found.",)),
        dataclasses.replace(report.verdict, residual=None),
    ])  # fmt: skip
    _with_report(folder, dataclasses.replace(report, verdict=verdict))


def _an_answer(folder: Path, draw: random.Random) -> None:
    told = read_json(folder / OBSERVATIONS, "")
    kinds = ("target", "paraphrases", "implicit", "neighbours", "unrelated")
    rows = [row for row in told["asked"] if row[1] in kinds]
    row = draw.choice(rows)
    row[6] = "none" if row[6] == row[4] else row[4]
    write_sealed_json(folder / OBSERVATIONS, {k: v for k, v in told.items() if k != "seal"})


def _an_observation(folder: Path, draw: random.Random) -> None:
    tensors, metadata = read_tensors(folder / TENSORS, "")
    told = read_json(folder / OBSERVATIONS, "")
    rates = [
        side["tensors"][0]
        for f in told["findings"]
        if f
        for side in f.values()
        if isinstance(side, dict) and side["how"] == "rate"
    ]
    name = draw.choice(rates)
    tensors[name] = 1 - tensors[name] if bool((tensors[name] != 0.5).any()) else torch.zeros_like(tensors[name])
    write_sealed(folder / TENSORS, tensors, metadata)
    resealed(folder, TENSORS)


def _a_rule(folder: Path, draw: random.Random) -> None:
    told = read_json(folder / OBSERVATIONS, "")
    name, value = draw.choice([("seed", 7), ("resamples", 300), ("guarded", False)])
    told[name] = value
    write_sealed_json(folder / OBSERVATIONS, {k: v for k, v in told.items() if k != "seal"})


def _what_it_is_made_of(folder: Path, draw: random.Random) -> None:
    told = read_json(folder / OBSERVATIONS, "")
    report = _report(folder)
    counted = [i for i, f in enumerate(report.findings) if f.index is not None]
    told["findings"][draw.choice(counted)] = None
    write_sealed_json(folder / OBSERVATIONS, {k: v for k, v in told.items() if k != "seal"})


def _a_kind(folder: Path, draw: random.Random) -> None:
    """Behaviour on one kind of prompts, taken out with what it is made of."""
    report, told = _report(folder), read_json(folder / OBSERVATIONS, "")
    metrics = ("detection rate", "recognised as asked")
    place = draw.choice([i for i, f in enumerate(report.findings) if f.metric in metrics])
    del told["findings"][place]
    write_sealed_json(folder / OBSERVATIONS, {k: v for k, v in told.items() if k != "seal"})
    _with_report(
        folder, dataclasses.replace(report, findings=(*report.findings[:place], *report.findings[place + 1 :]))
    )


def test_a_report_that_was_read_has_nothing_to_write(written, tmp_path):
    with pytest.raises(ValueError, match="audit again"):
        write_bundle(_report(written), tmp_path)


def test_what_is_no_audit_is_named(tmp_path):
    with pytest.raises(MissingFile, match=OBSERVATIONS.replace(".", "[.]")):
        verify(tmp_path)
    (tmp_path / OBSERVATIONS).write_text(json.dumps({"format": "other"}))
    with pytest.raises(WrongFile, match="format 'other'"):
        verify(tmp_path)
    assert CliRunner().invoke(app, ["verify", str(tmp_path)]).exit_code == 2
