"""Verdicts that a pipeline, or a test, asks for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import concept_probe.auditing
from concept_probe.cli import app, audits
from concept_probe.report import to_json
from concept_probe.storage import MissingFile
from concept_probe.testing import assert_erased
from concept_probe.types import Sampling
from tests.report.one_of_each import report


def test_an_erased_model_passes_and_any_other_fails_with_its_reasons(tmp_path):
    found = report("erased")
    assert assert_erased(found) is found
    (tmp_path / "report.json").write_text(to_json(report("suppressed")))
    for given in (tmp_path, tmp_path / "report.json", report("suppressed")):
        with pytest.raises(AssertionError, match=r"suppressed.*\n- Asked by name, it is gone[^$]*Not measured"):
            assert_erased(given)
    with pytest.raises(MissingFile):
        assert_erased(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("required", "status"), [((), 0), (("suppressed",), 0), (("erased",), 1), (("erased", "suppressed"), 0)]
)
def test_the_command_ends_with_a_status_for_pipelines(monkeypatch, required, status):
    monkeypatch.setattr(concept_probe.auditing, "audit", lambda *_, **__: report("suppressed"))
    monkeypatch.setattr(audits, "subject_of", lambda *_: SimpleNamespace(answers="pictures"))
    monkeypatch.setattr(audits, "recogniser_of", lambda *_: None)
    monkeypatch.setattr(audits, "sampling_of", lambda *_: Sampling())
    monkeypatch.setattr("concept_probe.auditing.arm.refuse_others", lambda *_: None)
    asked = [word for one in required for word in ("--require", one)]
    done = CliRunner().invoke(app, ["audit", "camel", "--twin", "none", *asked])
    assert done.exit_code == status, done.output
    assert ("required" in done.output) == bool(status)


def test_a_verdict_that_there_is_not_is_refused():
    done = CliRunner().invoke(app, ["audit", "camel", "--require", "gone"])
    assert done.exit_code == 2 and "gone" in done.output
