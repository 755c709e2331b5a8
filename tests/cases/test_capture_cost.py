"""A capture costs each prompt the same, however many there are, and loses nothing when it is cut off."""

from __future__ import annotations

import json

import pytest
import torch

from concept_probe.activations import Activations, CaptureOptions, capture, writer
from concept_probe.activations.journal import JOURNAL
from concept_probe.storage import CorruptFile
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt

PROMPTS = [Prompt(f"a cat {i}") for i in range(400)]


@pytest.fixture(scope="module")
def subject():
    return tiny_sd()


def store(subject, folder):
    return capture(subject, PROMPTS, roles=["text_stream"], folder=folder, options=CaptureOptions(shard_rows=2000))


def cut_off(subject, folder, passes):
    """A capture that is killed in the pass of that number."""
    count = 0

    def kill(*_):
        nonlocal count
        count += 1
        if count == passes:
            raise KeyboardInterrupt

    hook = subject.module(subject.sites("text_stream")[0]).register_forward_hook(kill)
    try:
        with pytest.raises(KeyboardInterrupt):
            store(subject, folder)
    finally:
        hook.remove()


def test_prompts_are_written_at_the_beginning_and_at_the_end_alone(subject, tmp_path, monkeypatch):
    written: list[bool] = []
    write = writer.ManifestFile.write
    monkeypatch.setattr(
        writer.ManifestFile, "write", lambda file, said: (written.append(said["complete"]), write(file, said))
    )
    acts = store(subject, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) >= 6 and acts.complete
    assert written == [False, True] and not (tmp_path / JOURNAL).exists()


@pytest.mark.slow
def test_what_was_cut_off_ends_as_if_it_had_not_been(subject, tmp_path):
    store(subject, tmp_path / "whole")
    cut_off(subject, tmp_path / "cut", 5)
    cut = tmp_path / "cut"
    assert json.loads((cut / "manifest.json").read_text())["shards"] == []
    with pytest.warns(UserWarning, match="was cut off after 256 of 400 prompts"):
        assert Activations.open(cut).rows(subject.sites("text_stream")[0]) == 256 * 20
    with (cut / JOURNAL).open("ab") as file:
        file.write(b'{"shard": {"file": "000009')  # what a killed writer leaves of a line
    cut_off(subject, cut, 2)
    store(subject, cut)
    for path in (tmp_path / "whole").iterdir():
        assert (cut / path.name).read_bytes() == path.read_bytes()
    assert len(list(cut.iterdir())) == len(list((tmp_path / "whole").iterdir()))


def test_a_line_that_was_altered_is_named(subject, tmp_path):
    cut_off(subject, tmp_path, 4)
    path = tmp_path / JOURNAL
    path.write_bytes(path.read_bytes().replace(b'"done": 64', b'"done": 65', 1))
    with pytest.raises(ValueError, match=r"shards.jsonl, line 1: it is not what was written"):
        Activations.open(tmp_path)
    with pytest.raises(CorruptFile, match="line 1"):
        store(subject, tmp_path)


def test_rows_of_many_sites_do_not_pile_up(subject, tmp_path, monkeypatch):
    one = capture(subject, PROMPTS, roles=["text_stream"])
    monkeypatch.setattr(writer, "MOST_HELD", 200_000)
    many = capture(subject, PROMPTS, roles=["text_stream"], folder=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) >= 3
    assert max(path.stat().st_size for path in tmp_path.glob("*.safetensors")) < 1_000_000
    for site in one.sites:
        assert torch.equal(one.read(site).x, many.read(site).x)
