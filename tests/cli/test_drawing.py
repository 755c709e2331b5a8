"""Skipped layers and rescaled guidance on the command line: said to every verb that draws, kept, or refused in one line."""

from __future__ import annotations

import json

import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner

from concept_probe.activations import Activations, CaptureOptions, read_rows
from concept_probe.cli import app
from concept_probe.cli.shared.making import Effort
from concept_probe.concepts.files import save_concept
from concept_probe.erasers.select.choose import CHOICE
from concept_probe.families import load
from concept_probe.testing.concepts import tiny_concept, tiny_quiz
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import tiny_llama
from concept_probe.testing.models.transformers import tiny_flux
from concept_probe.types import Sampling

DRAW = ("run", "capture", "browse", "attention", "find", "attribute", "erase", "attack", "audit", "bench")
READ = {"export": {"clip_skip"}}
"""Verbs that load a model and draw nothing: which weights an edit is of depends on how it is read."""
SAID = {
    "--guidance-rescale 0.7": "--guidance-rescale is of pictures, and writer answers with texts; leave it out",
    "--clip-skip 1": "writer: clip_skip 1 was asked of family",
    "--picture-size 64x64": "writer: pictures of 64 x 64 pixels were asked of a model that answers with texts",
}


def call(*args: str):
    return CliRunner().invoke(app, list(args))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A pipeline, a language model, and a concept for each."""
    folder = tmp_path_factory.mktemp("drawing")
    tiny_sd().pipeline.save_pretrained(folder / "painter")
    tiny_llama().pipeline.save_pretrained(folder / "writer")
    save_concept(tiny_concept(), folder / "painter.json")
    save_concept(tiny_quiz(), folder / "writer.json")
    (folder / "prompts.txt").write_text("a cat\nthe dog\n")
    return folder


def test_every_verb_that_draws_takes_them_and_no_other_does():
    for name, verb in get_command(app).commands.items():  # pyright: ignore[reportAttributeAccessIssue]
        taken = {option.name for option in verb.params} & {"clip_skip", "picture_size", "guidance_rescale"}
        assert len(taken) == (3 if name in DRAW else len(READ.get(name, ()))) and taken >= READ.get(name, set()), name


@pytest.mark.parametrize("option", SAID)
@pytest.mark.parametrize(
    "verb",
    [
        "capture -o x --role resid --prompt-file prompts.txt",
        "find cat -o x --concept-file writer.json", "erase cat -o x --concept-file writer.json",
        "attack cat --concept-file writer.json", "audit cat --concept-file writer.json",
        "run cat -o x --concept-file writer.json", "bench writer.json -o x --twin none",
    ],
)  # fmt: skip
def test_a_model_that_can_not_is_named_in_one_line(places, monkeypatch, verb, option):
    monkeypatch.chdir(places)
    shown = call(*verb.split(), "--model", "writer", *option.split())
    told = " ".join(shown.output.split())
    assert shown.exit_code == 2 and SAID[option] in told and "Traceback" not in told, shown.output
    assert not (places / "x").exists()


@pytest.mark.parametrize(
    ("role", "said"),
    [("text_out", "of pictures, and none is drawn for this; leave it out"), ("denoiser_out", "was distilled from")],
)
def test_a_pipeline_with_nothing_to_rescale_is_refused(places, monkeypatch, tmp_path, role, said):
    monkeypatch.setattr("concept_probe.cli.arrows.subject_of", lambda *_: tiny_flux(guidance=True))
    prompts = str(places / "prompts.txt")
    shown = call(
        "capture", "-o", str(tmp_path / "x"), "--prompt-file", prompts, "--role", role, "--guidance-rescale", "0.7"
    )
    assert shown.exit_code == 2 and said in " ".join(shown.output.split()), shown.output


def test_a_capture_is_drawn_as_asked(places, tmp_path):
    told = [
        "--clip-skip",
        "1",
        "--picture-size",
        "8x16",
        "--guidance-rescale",
        "0.7",
        "--role",
        "denoiser_out",
        "--step",
        "1",
    ]
    shown = call("capture", "-o", str(tmp_path / "x"), "--model", str(places / "painter"), "--prompt-file",
                 str(places / "prompts.txt"), *told)  # fmt: skip
    assert shown.exit_code == 0, shown.output
    header = json.loads((tmp_path / "x" / "manifest.json").read_text())["header"]
    assert header["sampling"]["guidance_rescale"] == 0.7 and header["conventions"] == {
        "clip_skip": 1, "picture_size": [8, 16],
    }  # fmt: skip
    store = Activations.open(tmp_path / "x")
    subject, found = load(places / "painter", clip_skip=1, picture_size=(8, 16)), store.read(store.sites[0])
    assert set(found.columns["step"].tolist()) == {1}

    def drawn(sampling: Sampling) -> torch.Tensor:
        options = CaptureOptions(steps=[1])
        return read_rows(subject, store.queries, sites=store.sites, sampling=sampling, options=options)[
            store.sites[0]
        ].x

    assert torch.equal(found.x, drawn(Sampling(guidance_rescale=0.7))) and not torch.equal(found.x, drawn(Sampling()))


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["audit", "run"])
def test_an_audit_and_its_choices_are_drawn_as_asked(places, monkeypatch, tmp_path, verb):
    seen = {}

    def told(subject, *_, plan, twin, **__):
        seen.update(plan=plan, skips=[(one.clip_skip, one.picture_size) for one in (subject, twin)])
        raise ValueError("that is enough")

    monkeypatch.setattr("concept_probe.auditing.audit", told)
    monkeypatch.chdir(places)
    more = ["--eraser", "uce", "-o", str(tmp_path / "x")] if verb == "run" else ["--method", "uce"]
    drawn = ["--clip-skip", "1", "--picture-size", "8x16", "--guidance-rescale", "0.5"]
    shown = call(verb, "cat", "--model", "painter", "--concept-file", "painter.json", "--twin", "painter", "--recogniser",
                 "concept_probe.testing.concepts:tiny_recogniser", *drawn, *more)  # fmt: skip
    assert "that is enough" in shown.output, shown.output
    assert seen["plan"].sampling == Sampling(guidance_rescale=0.5) and seen["skips"] == [(1, (8, 16))] * 2
    assert Effort(guidance_rescale=0.5).of(CHOICE).sampling == Sampling(
        steps=CHOICE.sampling.steps, guidance_rescale=0.5
    )
