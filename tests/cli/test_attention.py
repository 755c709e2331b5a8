"""`concept-probe attention`: a page of maps, the maps themselves, and what is refused in one line."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from concept_probe.cli import app
from concept_probe.figures import png
from concept_probe.find import load_attention
from concept_probe.testing.models import save_model
from concept_probe.testing.models.diffusion import tiny_sd


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_model(tiny_sd(), tmp_path_factory.mktemp("model") / "tiny"))


def call(*args: object):
    return CliRunner().invoke(app, ["attention", *map(str, args)])


def test_a_page_and_its_maps(model, tmp_path):
    page, maps = tmp_path / "maps.html", tmp_path / "maps"
    words = ("--word", "cat", "--word", "the", "--need", "--steps", 2)
    made = call("the cat and <b>a cat</b>", "-m", model, *words, "-o", page, "--maps", maps)
    assert made.exit_code == 0, made.output
    assert "maps of 3 words in 4 layers" in made.output
    text = page.read_text()
    for shown in ("cat (1)", "cat (2)", "More than the other words", "cat: layer by layer", "step 1", "mid_block"):
        assert shown in text
    assert "&lt;b&gt;" in text and "<b>a cat" not in text
    assert "concept-probe attention" in text and str(tmp_path) not in text
    assert load_attention(maps).words() == ["cat", "the"]


def test_a_given_picture_is_looked_at(model, tmp_path):
    picture = torch.rand(3, 16, 16)
    (tmp_path / "a.png").write_bytes(png(picture))
    options = ("-m", model, "--steps", 2, "-o", tmp_path / "x.html", "--picture")
    assert call("a cat", *options, tmp_path / "a.png", "--maps", tmp_path / "maps").exit_code == 0
    subject = tiny_sd()
    with torch.no_grad():
        wanted = subject.decode(subject.latents(((picture * 255).round() / 255)[None]))[0]
    torch.testing.assert_close(load_attention(tmp_path / "maps").picture(), wanted, atol=0.003, rtol=0)
    (tmp_path / "wide.png").write_bytes(png(torch.rand(3, 16, 32)))
    wrong = call("a cat", *options, tmp_path / "wide.png")
    assert wrong.exit_code == 2 and "pictures are (1, 3, 16, 32)" in wrong.output.replace("\n", " ")
    gone = call("a cat", *options, tmp_path / "none.png")
    assert gone.exit_code == 2 and "not found" in gone.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--word", "dog"), "'dog' is not a word of the prompt 'a cat'; its words are: 'a', 'cat'"),
        (("--layer", "self"), "the image looks at itself, and at no word"),
        (("--layer", "down"), "layer 'down' not found"),
    ],
)
def test_what_can_not_be_seen_is_refused_and_no_page_is_written(model, tmp_path, options, said):
    wrong = call("a cat", "-m", model, "--steps", 1, "-o", tmp_path / "x.html", *options)
    assert wrong.exit_code == 2 and said in " ".join(wrong.output.split())
    assert not (tmp_path / "x.html").exists()
