"""The verb `attribute`: a table, a page, values that stay, and errors in one line."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from concept_probe.cli import app
from concept_probe.find.files import save_found
from concept_probe.report import attribution_from_json
from concept_probe.types import Score, Subspace


def call(*args: str):
    return CliRunner().invoke(app, list(args))


def test_places_of_the_embedded_model(tmp_path):
    args = ("attribute", "camel", "--players", "mlp", "--removal", "zero", "--behaviour", "readout", "--prompts", "4")
    shown = call(*args, "--output", str(tmp_path))
    assert shown.exit_code == 0, shown.output
    found = attribution_from_json((tmp_path / "attribution.json").read_text())
    best = found.scores[found.order()[0]]
    assert best.name == "text_encoder/encoder.layers.0.mlp:out at eos" and found.share(best.name) > 0.8
    assert best.control is not None and best.low > best.control
    assert "matched random" in shown.output and (tmp_path / "attribution.html").stat().st_size > 100_000
    again = call(*args, "--output", str(tmp_path))
    assert again.exit_code == 0 and "0 answers" in again.stderr


def test_what_was_found_plays(tmp_path):
    import concept_probe as cp

    subject = cp.load("emoji")
    site = subject.sites("mlp_value")[0]
    one = Score("made by a test", 1.0, 1.0, 1.0, 1)
    spaces = [
        Subspace(type(site)(site.component, site.path, "weight", j), subject.matrix(site)[:, [j]].detach().clone(),
                 "parameter", one, role="mlp_value")
        for j in (3, 700)
    ]  # fmt: skip
    save_found(spaces, tmp_path / "found")
    shown = call("attribute", "camel", "--found", str(tmp_path / "found"), "--behaviour", "readout", "--prompts", "2",
                 "--summary", "leave_one_out", "--output", str(tmp_path / "out"))  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert "weight[3]" in (tmp_path / "out" / "attribution.json").read_text()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--summary", "shaply"), "summary 'shaply' not found; nearest: 'shapley'"),
        (("--behaviour", "detect"), "behaviour 'detect' not found; nearest: 'detection'"),
        (("--behaviour", "answers"), "is of models that answer with texts"),
        (("--players", "mlps"), "kind of players 'mlps' not found; nearest: 'mlp'"),
        (("--summary", "alone", "--samples", "3"), "'alone' draws none; leave it out"),
        (("--max-answers", "5"), "the plan allows 5"),
        (("--summary", "gradients"), "needs a behaviour with a slope"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, args, said):
    shown = call("attribute", "camel", "--output", str(tmp_path / "out"), *args)
    assert shown.exit_code == 2
    assert said in shown.output.replace("\n", " ") and "Traceback" not in shown.output
    assert not (tmp_path / "out" / "attribution.json").exists()


@pytest.mark.parametrize(
    ("topic", "word"), [("removals", "resample"), ("behaviours", "readout"), ("summaries", "sobol")]
)
def test_info_lists_what_there_is(topic, word):
    shown = call("info", topic)
    assert shown.exit_code == 0 and word in shown.output
