"""A folder is one thing, has one writer, and what is named in it stays inside."""

from __future__ import annotations

import sys
import threading

import pytest
import torch

from concept_probe.activations import capture
from concept_probe.learn import Run, train_saes
from concept_probe.learn.train.settings import PassOptions
from concept_probe.storage import FolderInUse, WrongFile, inside, only_writer
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt
from tests.cases.made import SITE, trained

PROMPTS = [Prompt("a red cat"), Prompt("a dog"), Prompt("the sun")]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="rights, links and locks of POSIX")


@pytest.fixture(scope="module")
def subject():
    return tiny_sd()


@POSIX
def test_a_second_writer_is_refused_at_once(subject, tmp_path):
    refused = []

    def second():
        for write in (
            lambda: capture(subject, PROMPTS, roles=["text_stream"], folder=tmp_path / "x"),
            lambda: trained(tmp_path / "x"),
        ):
            try:
                write()
            except FolderInUse as error:
                refused.append(str(error))

    with only_writer(tmp_path / "x", "a capture"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 2 and all("is being written by another process or thread" in said for said in refused)
    assert not (tmp_path / "x").exists(), "a folder that nothing was written into does not stay"


def test_a_folder_is_one_thing_and_foreign_files_stay(subject, tmp_path):
    acts = capture(subject, PROMPTS, roles=["text_stream"], folder=tmp_path)
    with pytest.raises(WrongFile, match=r"it holds a capture \(manifest.json\); a folder is one thing"):
        trained(tmp_path)
    foreign = {"sae_weights.safetensors": b"theirs", "training.safetensors": b"too", "film.part": b"a film"}
    for name, data in foreign.items():
        (tmp_path / name).write_bytes(data)
    again = capture(subject, PROMPTS, roles=["text_stream"], folder=tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in foreign} == foreign
    assert torch.equal(again.read(acts.sites[0]).x, acts.read(acts.sites[0]).x)


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "a//b", "", ".", "a\0b"])
def test_names_stay_inside_their_folder(name, tmp_path):
    with pytest.raises(WrongFile, match="is no name inside the folder"):
        inside(tmp_path, name, "run")
    if name:
        with pytest.raises(WrongFile, match="the run"):
            runs = {name: Run(SITE, k=2)}
            train_saes(iter(()), runs, samples=64, folder=tmp_path / "in", options=PassOptions(batch=64))
    assert not any(p.name == "x" for p in tmp_path.iterdir())


@POSIX
def test_a_link_out_of_the_folder_is_no_name_inside(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "run").symlink_to(tmp_path)
    with pytest.raises(WrongFile, match="a link that leads out"):
        inside(tmp_path / "in", "run", "run")
