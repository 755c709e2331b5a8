"""The command line: clean output, clean errors, one arrow per verb."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from concept_probe.cli import app
from tests.report.one_of_each import report


def call(*args: str):
    return CliRunner().invoke(app, list(args))


def test_help_names_every_verb_and_gives_an_example():
    shown = call("--help")
    assert shown.exit_code == 0
    for verb in ("run", "capture", "train", "find", "erase", "attack", "audit", "report", "info", "testbed"):
        assert verb in shown.output
        if verb != "testbed":
            assert "concept-probe" in call(verb, "--help").output, f"{verb} --help has no example"


@pytest.mark.parametrize("topic", ["models", "concepts", "erasers", "attacks"])
def test_info_lists(topic):
    shown = call("info", topic)
    assert shown.exit_code == 0, shown.output
    word = {"models": "emoji-untaught", "concepts": "camel", "erasers": "uce", "attacks": "relearning"}[topic]
    assert word in shown.output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["info", "model"], "models"),
        (["erase", "camle", "--output", "x"], "camel"),
        (["erase", "camel", "--output", "x", "--model", "emojy"], "emoji"),
        (["erase", "camel", "--output", "x", "--method", "uci"], "uce"),
        (["erase", "camel", "--output", "x", "--method", "blocklist"], "changes no weights"),
        (["find", "camel", "--output", "x", "--what", "colums"], "columns"),
        (["attack", "camel", "--attack", "inversion"], "embedding_inversion"),
        (["report", "nowhere.json"], "not found"),
        (["audit", "camel", "--edit", "a", "--method", "uce"], "not both"),
    ],
)
def test_what_is_refused_is_said_in_one_line(args, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = call(*args)
    assert shown.exit_code == 2
    assert said in " ".join(shown.output.split())
    assert "Traceback" not in shown.output
    assert not (tmp_path / "x").exists(), "nothing is half-written"


def test_report_renders_json_again(tmp_path):
    from concept_probe.report import to_json

    (tmp_path / "report.json").write_text(to_json(report()))
    shown = call("report", str(tmp_path / "report.json"), "--output", str(tmp_path / "out"))
    assert shown.exit_code == 0, shown.output
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"report.json", "report.html", "report.md"}
    assert "suppressed" in shown.output


@pytest.mark.slow
def test_capture_train_find_erase_audit_one_after_the_other(tmp_path):
    acts, sae, found, edit = (str(tmp_path / n) for n in ("acts", "sae", "found", "edit"))
    site = "text_encoder/encoder.layers.0:out"
    for args in (
        ["capture", "--output", acts, "--role", "text_stream", "--limit", "600"],
        ["train", acts, "--output", sae, "--site", site, "--samples", "60000"],
        ["find", "camel", "--output", found, "--sae", sae, "--count", "4"],
        ["erase", "camel", "--output", edit, "--method", "uce"],
    ):
        shown = call(*args)
        assert shown.exit_code == 0, (args, shown.output)
    shown = call("audit", "camel", "--method", "ablate_features", "--found", found, "--sae", sae, "--attack", "none",
                 "--prompts", "2", "--seeds", "1", "--twin", "none", "--output", str(tmp_path / "report"))  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_audit_json_prints_the_report_and_nothing_else():
    command = [sys.executable, "-m", "concept_probe", "audit", "camel", "--method", "blocklist", "--json", "--prompts", "2",
               "--seeds", "1", "--attack", "none", "--twin", "none"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    data = json.loads(done.stdout)
    assert data["concept"] == "camel"
    assert data["erasure"].startswith("blocklist")
