"""Somebody's adapter on the command line: audited against its base, and written in another form."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from concept_probe.cli import app
from concept_probe.erasers import Edit, LowRank
from concept_probe.families import load


def run(*words: str):
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    return shown


@pytest.mark.slow
def test_an_adapter_is_written_read_and_audited(tmp_path):
    subject = load("emoji")
    name, x = next((n, x) for n, x in subject.components["unet"].named_parameters() if n.endswith("attn2.to_k.weight"))
    u = torch.ones(x.shape[0], 1) / 10
    v = torch.ones(x.shape[1], 1) / 10
    where = f"unet/{name.removesuffix('.weight')}:weight"
    Edit("hand", "camel", {where: LowRank(u, v)}, subject.weight_hash()).save(tmp_path / "edit")
    run("export", str(tmp_path / "edit"), "--form", "kohya", "-o", str(tmp_path / "lora"))
    file = tmp_path / "lora" / "camel-hand.safetensors"
    small = ["--prompts", "1", "--seeds", "1", "--attack", "none", "--twin", "none"]
    shown = run("audit", "camel", "--edit", str(file), "--json", *small)
    report = json.loads(shown.stdout)
    assert report["concept"] == "camel" and "camel-hand" in report["erasure"]
    run("export", str(file), "--form", "edit", "-o", str(tmp_path / "again"))
    assert [*Edit.load(tmp_path / "again").deltas] == [where]
