"""A file where a folder belongs, a thing where another is asked for: one line, exit 2, before anything is computed."""

from __future__ import annotations

import errno
import os
import time

import pytest
import torch
import typer
from typer.testing import CliRunner

from concept_probe.activations import capture
from concept_probe.cli import app
from concept_probe.cli.common import plain_errors
from concept_probe.erasers import Edit, LowRank
from concept_probe.testing.models import TINY_MODELS
from concept_probe.types import Prompt

WRONG = {
    "capture -o file": "nothing can be written in",
    "capture -o dangling": "is a link to a place that isn't there",
    "capture -o edit": "it holds an edit (edit.json); a folder is one thing",
    "train acts -o edit": "it holds an edit (edit.json)",
    "find camel -o acts": "it holds a capture (manifest.json)",
    "erase camel -o acts": "it holds a capture (manifest.json)",
    "erase camel -o new --method receler": "acts while the model runs and changes no weights",
    "attack camel --edit file": "not a whole safetensors file",
    "attack camel --edit model": "have no place in",
    "attack camel --edit kept": "no folder of an adapter or a model, with 0 files of weights (none)",
    "audit camel -o taken": "report.html is to be a file and is something else",
    "audit camel --attack nonsense --method uce": "attack 'nonsense' not found",
    "audit camel --twin model --method uce": "the twin 'model' answers with texts and 'emoji' with pictures",
    "bench camel -o kept": "fits is to be a folder and is something else",
    "calibrate -o taken --summary": "rows.jsonl is to be a file",
    "browse acts -o taken": "taken is to be a file",
    "attention cat -o taken": "taken is to be a file",
    "attention cat -o new.html --maps acts": "it holds a capture (manifest.json)",
    "find camel -o new --sae json:dumps": "calling it without arguments gave TypeError",
    "find camel -o new --what columns --recogniser os:path": "calling it without arguments gave TypeError",
    "testbed show -o taken": "taken is to be a file",
    "testbed show -o icons.nonsense": "names no format of pictures; let it end in .png",
    "testbed train --work file": "nothing can be written in",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    (folder / "file").write_text("hello")
    (folder / "dangling").symlink_to(folder / "nowhere")
    for name in ("report.html", "rows.jsonl"):
        (folder / "taken" / name).mkdir(parents=True)
    (folder / "kept").mkdir()
    (folder / "kept" / "fits").write_text("hello")
    model = TINY_MODELS["llama"]()
    model.pipeline.save_pretrained(folder / "model")
    Edit("x", "c", {"a/b:weight": LowRank(torch.ones(2, 1), torch.ones(2, 1))}, "hash").save(folder / "edit")
    capture(model, [Prompt("the cat")], roles=["resid"], folder=folder / "acts")
    return folder


@pytest.mark.parametrize("asked", WRONG)
def test_what_is_in_the_wrong_place_is_said_in_one_line(asked, places, monkeypatch):
    monkeypatch.chdir(places)
    before, started = sorted(places.rglob("*")), time.perf_counter()
    shown = CliRunner().invoke(app, asked.split())
    assert shown.exit_code == 2 and isinstance(shown.exception, SystemExit)
    (line,) = [line for line in shown.stderr.splitlines() if line.startswith("error:")]
    assert WRONG[asked] in line and "Traceback" not in shown.stderr
    assert sorted(places.rglob("*")) == before and time.perf_counter() - started < 30


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_a_disk_that_takes_no_more_is_said_with_the_mend(number, capsys):
    with pytest.raises(typer.Exit) as left, plain_errors():
        raise OSError(number, os.strerror(number), "shard")
    said = capsys.readouterr().err
    assert left.value.exit_code == 2 and said.count("\n") == 1
    assert "nothing is half-written" in said and "or give another --output, and repeat" in said


@pytest.mark.parametrize("verb", [["run", "--eraser"], ["audit", "--method"], ["erase", "--method"]])
@pytest.mark.parametrize(("method", "said"), [("crisp", "answers with pictures"), ("erase_anything", "has none")])
def test_a_method_that_does_not_fit_the_model_is_refused_before_anything_is_estimated(verb, method, said, tmp_path):
    asked = [verb[0], "camel", verb[1], method, "--estimate", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 2 and said in " ".join(result.stderr.split()), result.output
    assert "pictures, " not in result.stdout


@pytest.mark.parametrize("place", ["missing.json", "some/where"])
def test_a_concept_file_that_is_not_there_is_no_misspelt_name(place, tmp_path):
    asked = ["erase", "camel", "--also", place, "--method", "uce", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, asked)
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2 and place in said and "nearest" not in said, result.output
