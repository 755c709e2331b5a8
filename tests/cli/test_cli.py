"""The command line: clean output, clean errors, one arrow per verb."""

import json
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from concept_probe import __version__
from concept_probe.cli import app
from tests.report.one_of_each import report


def call(*args: str):
    return CliRunner().invoke(app, list(args))


@pytest.mark.slow
def test_help_names_every_verb_and_gives_an_example():
    shown = call("--help")
    assert shown.exit_code == 0
    verbs = (
        "run",
        "capture",
        "train",
        "browse",
        "attention",
        "find",
        "erase",
        "attack",
        "audit",
        "report",
        "bench",
        "info",
    )
    verbs += ("testbed",)
    for verb in verbs:
        assert verb in shown.output
        if verb != "testbed":
            assert "concept-probe" in call(verb, "--help").output, f"{verb} --help has no example"


def test_help_of_calibrate_gives_an_example():
    assert "calibrate" in call("--help").output and "concept-probe calibrate" in call("calibrate", "--help").output


def test_versions_are_told():
    shown = call("--version")
    assert shown.exit_code == 0 and shown.output.startswith(f"concept-probe {__version__}\ntorch {torch.__version__}")
    assert call("--version", "run").output == shown.output, "nothing else is done"


@pytest.mark.parametrize("topic", ["models", "concepts", "erasers", "attacks", "recognisers", "families"])
def test_info_lists(topic):
    shown = call("info", topic)
    assert shown.exit_code == 0, shown.output
    word = {
        "models": "emoji-untaught",
        "concepts": "camel",
        "erasers": "uce",
        "attacks": "relearning",
        "recognisers": "emoji-style",
        "families": "StableDiffusionXLPipeline",
    }[topic]
    assert word in shown.output


def test_info_lists_the_concepts_of_a_language_model():
    shown = call("info", "concepts", "--model", "smollm2")
    assert shown.exit_code == 0, shown.output
    assert "Harry Potter" in shown.output and "camel" not in shown.output
    wrong = call("info", "concepts", "--model", "smolm2")
    assert wrong.exit_code == 2 and "smollm2" in wrong.output


@pytest.mark.slow
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
        (["browse", "nowhere", "--output", "x"], "looked for sae-lens"),
        (["audit", "camel", "--method", "uce", "--attack", "inversion", "--output", "x"], "embedding_inversion"),
        (["run", "camel", "--output", "x", "--eraser", "uci"], "uce"),
        (["run", "camel", "--output", "x", "--twin", "emojy"], "emoji"),
        (["run", "camel", "--output", "x", "--prompts", "0"], "greater than or equal to 1"),
        (["run", "camel", "--output", "x", "--recogniser", "clip:nowhere"], "folder nowhere not found"),
        (["run", "camel", "--output", "file/x"], "give another folder"),
        (["bench", "camel", "--output", "x", "--eraser", "uci"], "uce"),
        (["bench", "camle", "--output", "x"], "camel"),
        (["bench", "camel", "--output", "x", "--attack", "inversion"], "embedding_inversion"),
        (["calibrate", "--output", "x", "--summary"], "a calibration needs audits"),
        (["capture", "--output", "x", "--prompt-file", "nowhere.txt"], "prompt file nowhere.txt not found"),
        (["capture", "--output", "x", "--limit", "0"], "greater than or equal to 1"),
        (["train", "broken", "--output", "x"], "broken/manifest.json: not whole JSON"),
        (["report", "broken"], "broken/report.json not found"),
    ],
)
def test_what_is_refused_is_said_in_one_line(args, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text('{"header": {}')
    shown = call(*args)
    assert shown.exit_code == 2
    assert said in " ".join(shown.output.split())
    assert "Traceback" not in shown.output
    assert not (tmp_path / "x").exists(), "nothing is half-written"


def test_finding_nothing_is_a_result_with_an_exit_code_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("concept_probe.find.find_features", lambda *_, **__: ())
    shown = call("find", "camel", "--output", str(tmp_path / "x"))
    assert shown.exit_code == 1
    assert "nothing in emoji is both selective and causal for 'camel'" in " ".join(shown.output.split())
    assert "error" not in shown.output and not (tmp_path / "x").exists()


def test_an_interruption_is_said_in_words(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("concept_probe.find.find_features", interrupted)
    shown = call("find", "camel", "--output", str(tmp_path / "x"))
    assert shown.exit_code == 130 and "interrupted" in shown.output and "Traceback" not in shown.output


@pytest.mark.slow
def test_a_warning_is_one_line_without_its_source(tmp_path):
    (tmp_path / "prompts.txt").write_text("camel " * 60 + "\n" + "zebra " * 60 + "\n")
    shown = call("capture", "--output", str(tmp_path / "x"), "--prompt-file", str(tmp_path / "prompts.txt"))
    assert shown.exit_code == 0, shown.output
    assert "warning: only the first 40 tokens" in shown.output and "of 1 more prompts" in shown.output
    assert "UserWarning" not in shown.output and ".py" not in shown.output


@pytest.mark.slow
def test_an_attack_shows_its_control(tmp_path):
    shown = call("attack", "camel", "--attack", "paraphrases", "--queries", "3")
    assert shown.exit_code == 0, shown.output
    assert "control, a random candidate" in shown.output and "spent: 3 pictures" in shown.output


def test_report_renders_json_again(tmp_path):
    from concept_probe.report import to_json

    (tmp_path / "report.json").write_text(to_json(report()))
    shown = call("report", str(tmp_path / "report.json"), "--output", str(tmp_path / "out"))
    assert shown.exit_code == 0, shown.output
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"report.json", "report.html", "report.md"}
    assert "suppressed" in shown.output


@pytest.mark.slow
def test_capture_and_train_say_first_what_they_take(tmp_path):
    acts, sae = str(tmp_path / "acts"), str(tmp_path / "sae")
    kept = ["--limit", "60", "--kind", "content", "--kind", "eos", "--dtype", "float16"]
    shown = call("capture", "--output", acts, "--site", "text_encoder/encoder.layers.0:out", *kept)
    assert shown.exit_code == 0 and "60 prompts: about" in shown.output and "GB on disk" in shown.output
    shown = call("train", acts, "--output", sae, "--samples", "640", "--batch", "64", "--expansion", "2")
    assert shown.exit_code == 0 and "GB of memory (weights" in shown.output
    assert "explains nan" not in shown.output, "rows in float16 are judged in float32"
    shown = call("train", acts, "--output", str(tmp_path / "none"), "--expansion", "4000000")
    assert shown.exit_code == 2 and "--expansion) or smaller batches" in " ".join(shown.output.split())
    assert not (tmp_path / "none").exists()


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
@pytest.mark.exhaustive
def test_audit_json_prints_the_report_and_nothing_else():
    command = [sys.executable, "-m", "concept_probe", "audit", "camel", "--method", "blocklist", "--json", "--prompts", "2",
               "--seeds", "1", "--attack", "none", "--twin", "none"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    data = json.loads(done.stdout)
    assert data["concept"] == "camel"
    assert data["erasure"].startswith("blocklist")
