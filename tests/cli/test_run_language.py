"""The whole flow in one command, for a language model and a concept whose prompts have answers."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from concept_probe.cli import app
from concept_probe.concepts.files import save_concept
from concept_probe.report import from_json
from concept_probe.testing.concepts import tiny_quiz
from concept_probe.testing.models.language import tiny_llama


def call(*args: str):
    return CliRunner().invoke(app, list(args))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a model, and a concept file."""
    folder = tmp_path_factory.mktemp("tiny")
    subject = tiny_llama()
    subject.model.config.max_position_embeddings = 512  # the byte-level tokenizer spells long prompts
    subject.pipeline.save_pretrained(folder / "model")
    save_concept(tiny_quiz(), folder / "cat.json")
    return folder


@pytest.mark.slow
def test_run_erases_audits_and_writes_a_report(files, tmp_path):
    model, concept, out = str(files / "model"), str(files / "cat.json"), tmp_path / "out"
    shown = call("run", "cat", "--model", model, "--concept-file", concept, "--output", str(out), "--prompts", "3")
    assert shown.exit_code == 0, shown.output
    report = from_json((out / "report.json").read_text(encoding="utf-8"))
    assert report.concept == "cat" and report.erasure == "npo × 0.35" and report.writings
    assert {f.metric for f in report.findings} >= {"success of in_context", "success of temperature"}
    assert (out / "edit" / "edit.json").is_file() and (out / "report.html").is_file()
    assert "no strength can be chosen, so the gentlest is taken: 'cat'" in " ".join(shown.output.split())
    assert "tokens=8" in report.provenance["sampling"]


@pytest.mark.slow
def test_attacks_on_texts_are_named_and_those_on_pictures_refused(files, tmp_path):
    about = ("cat", "--model", str(files / "model"), "--concept-file", str(files / "cat.json"))
    shown = call("attack", *about, "--attack", "quantisation", "--queries", "8")
    assert shown.exit_code == 0 and "quantisation on cat" in shown.output and "spent: 8 texts" in shown.output
    assert "relearning on cat" in call("attack", *about, "--queries", "8", "--steps", "1").output
    refused = call("attack", *about, "--attack", "latent_inversion")
    assert refused.exit_code == 2 and "answers with texts" in " ".join(refused.output.split())
    audited = call(
        "audit", *about, "--attack", "pruning", "--prompts", "2", "--queries", "8", "--output", str(tmp_path)
    )
    assert audited.exit_code == 0, audited.output
    assert "success of pruning" in (tmp_path / "report.json").read_text(encoding="utf-8")


def test_columns_that_nobody_needs_are_not_ablated(files, tmp_path):
    """One fact in the select split shows nothing, so no column is found."""
    model, concept = str(files / "model"), str(files / "cat.json")
    shown = call("run", "cat", "--model", model, "--concept-file", concept, "--output", str(tmp_path / "out"),
                 "--eraser", "ablate_vectors")  # fmt: skip
    said = " ".join(shown.output.split())
    assert shown.exit_code == 2 and "were found that answers on 'cat' need" in said and "--eraser npo" in said
    assert not (tmp_path / "out" / "report.json").exists()


def test_a_concept_that_is_not_packaged_is_refused_with_those_that_are(tmp_path):
    shown = call("run", "astrology", "--model", "smollm2", "--output", str(tmp_path / "out"))
    said = " ".join(shown.output.split())
    assert shown.exit_code == 2 and "concept 'astrology' not found" in said
    assert "geometry" in said and "write a concept file with answers" in said
    assert not (tmp_path / "out").exists()
