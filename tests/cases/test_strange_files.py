"""Files of other kinds, cut ones and huge ones: each is named, with what is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from concept_probe.concepts.files import load_concept
from concept_probe.storage import (
    CorruptFile,
    MissingFile,
    WrongFile,
    parse_json,
    read_picture,
    read_tensors,
    tensor_entries,
    write_tensors,
)


def test_a_pickle_by_another_name_and_half_a_file_are_named(tmp_path):
    path = tmp_path / "x.safetensors"
    torch.save({"x": torch.ones(2)}, path)
    with pytest.raises(WrongFile, match=r"x\.safetensors is a pickle"):
        read_tensors(path, "get it again")
    write_tensors(path, {"x": torch.ones(200)})
    path.write_bytes(path.read_bytes()[:400])
    for read in (tensor_entries, read_tensors):
        with pytest.raises(CorruptFile, match=r"x\.safetensors: not a whole safetensors file.*get it again"):
            read(path, "get it again")
    with pytest.raises(MissingFile):
        read_tensors(tmp_path / "y.safetensors", "")


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("[" * 200_000, "lists and objects within one another"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": "\\ud800"}', "half a character"),
        (f'{{"a": {"9" * 5000}}}', "not whole JSON"),
        (b"\xff\xfe{", "not whole JSON"),
    ],
)
def test_json_that_nobody_can_walk_through_is_named(text, check):
    with pytest.raises(CorruptFile, match=check):
        parse_json(text, "x.json", "mend it")


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"examples": 5}, "examples should be the name of a folder, not 5"),
        ({"target": {"fit": "a church"}}, "target, fit should be a list of prompts"),
        ({"target": {"fit": 5}}, "target, fit should be a list of prompts"),
        ({"target": {"fit": [{"text": "a", "label": 5}]}}, "label should be a text, not 5"),
        ({"target": {"fit": [{"text": "a", "form": []}]}}, "form should be one of plain, chat"),
        ({"name": 5}, "needs at least a name"),
    ],
)
def test_a_concept_file_says_what_is_wrong(change, check, tmp_path):
    path = tmp_path / "church.json"
    path.write_text(json.dumps({"name": "church", "target": {"fit": ["a church"]}, **change}))
    with pytest.raises(ValueError, match=check) as caught:
        load_concept(path)
    assert str(path) in str(caught.value)


@pytest.mark.slow
def test_a_huge_picture_is_not_decoded(tmp_path):
    path = tmp_path / "huge.png"
    for size in ((30_000, 12_000), (10_000, 9_000)):
        Image.new("1", size).save(path)
        with pytest.raises(CorruptFile, match=r"huge\.png: a picture of more than .* pixels"):
            read_picture(path, "take a smaller one")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CorruptFile, match=r"huge\.png: not a whole picture"):
        read_picture(path, "take a smaller one")
