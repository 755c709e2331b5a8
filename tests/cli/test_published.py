"""Published settings on the command line: told, taken, and refused where there are none."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from concept_probe.cli import app
from concept_probe.cli.console import out
from concept_probe.erasers import ERASERS, Uce


def run(*words: str):
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "240"})


def test_they_are_told(monkeypatch):
    monkeypatch.setattr(out, "_width", 240)
    said = run("info", "published").output
    assert all(name in said for name, kind in ERASERS.items() if kind.authors is not None)
    assert "blocklist" not in said and "not known" in said


@pytest.mark.slow
def test_they_are_taken(tmp_path):
    done = run("erase", "camel", "--method", "uce", "--published", "--output", str(tmp_path / "edit"))
    assert done.exit_code == 0, done.output
    made_by = json.loads((tmp_path / "edit" / "edit.json").read_text())["made_by"]
    theirs = Uce.published()
    assert made_by["options"]["lam"] == theirs.lam == 0.5 and made_by["options"]["policy"] == "last_subject"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("erase", "camel", "--method", "ablate_features", "--output", "out"), "this project's own"),
        (("audit", "camel", "--method", "cgce"), "not known here"),
        (("attack", "camel"), "none was named"),
    ],
)
def test_they_are_refused_where_there_are_none(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*words, "--published")
    assert done.exit_code == 2 and said in " ".join(done.output.split())
