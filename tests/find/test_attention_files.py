"""Attention maps on disk: whole or absent, resumed, read back, and refused where they are not what was written."""

from __future__ import annotations

import json

import pytest
import torch

from concept_probe.erasers import Blocklist, NegativePrompt, Uce
from concept_probe.find.attention.batch import MapOptions, MappedBatch
from concept_probe.find.attention.collect import attention_maps
from concept_probe.find.attention.files import INDEX
from concept_probe.find.attention.maps import MapChoice, load_attention
from concept_probe.storage import CorruptFile, MissingFile, WrongFile, seal_of
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt, Query, Sampling

QUERIES = [Query(Prompt("the cat"), 1), Query(Prompt("a dog in the sun", "dog"), 2), Query(Prompt("red cat"), 3)]
SAMPLING = Sampling(steps=2, guidance=3.0, batch=2)


@pytest.fixture
def folder(tmp_path):
    attention_maps(tiny_sd(), QUERIES, folder=tmp_path / "maps", sampling=SAMPLING)
    return tmp_path / "maps"


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_maps_read_back_are_those_that_were_made(folder):
    made, read = attention_maps(tiny_sd(), QUERIES, sampling=SAMPLING), load_attention(folder)
    assert sorted(files(folder)) == ["00000.safetensors", "00001.safetensors", INDEX]
    assert read.queries == tuple(QUERIES) and read.steps == (0, 1) and len(read) == 3 and read.sigmas == made.sigmas
    for i in range(3):
        assert read.words(i) == made.words(i) and torch.equal(read.picture(i), made.picture(i))
        for word in read.words(i):
            for step in (None, [0], [1]):
                which = MapChoice(query=i, steps=step)
                assert torch.equal(read.of(word, which=which), made.of(word, which=which))


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(folder, tmp_path, monkeypatch):
    run = MappedBatch.run

    def stopped(self, queries, sampling, latents):
        if queries[0].seed == 3:
            raise KeyboardInterrupt
        return run(self, queries, sampling, latents)

    monkeypatch.setattr(MappedBatch, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        attention_maps(tiny_sd(), QUERIES, folder=tmp_path / "again", sampling=SAMPLING)
    half = load_attention(tmp_path / "again")
    assert len(half) == 2 and half.of("dog", which=MapChoice(query=1)).shape == (4, 4)
    with pytest.raises(ValueError, match="prompt 2 was asked for; there are maps of 2, number 0 to 1"):
        half.of("cat", which=MapChoice(query=2))
    made = []
    monkeypatch.setattr(MappedBatch, "run", lambda self, asked, *more: made.append(asked) or run(self, asked, *more))
    attention_maps(tiny_sd(), QUERIES, folder=tmp_path / "again", sampling=SAMPLING)
    assert files(tmp_path / "again") == files(folder) and made == [QUERIES[2:]]


def test_a_folder_is_of_one_set_of_maps(folder, tmp_path):
    before = files(folder)
    with pytest.raises(ValueError, match="holds attention maps with other steps"):
        attention_maps(tiny_sd(), QUERIES, folder=folder, sampling=SAMPLING, options=MapOptions(steps=[0]))
    with pytest.raises(ValueError, match="holds attention maps with other subject"):
        attention_maps(tiny_sd(seed=1), QUERIES, folder=folder, sampling=SAMPLING)
    with pytest.raises(ValueError, match="holds attention maps with other sampling"):
        attention_maps(tiny_sd(), QUERIES, folder=folder, sampling=Sampling(2, 4.0, batch=2))
    assert files(folder) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text("{}")
    with pytest.raises(WrongFile, match="it holds a capture"):
        attention_maps(tiny_sd(), QUERIES, folder=tmp_path / "other", sampling=SAMPLING)


@pytest.mark.parametrize(
    ("name", "damage"),
    [(name, damage) for name in ("00001.safetensors", INDEX) for damage in ("cut", "altered", "gone")]
    + [("00001.safetensors", "swapped")],
)
def test_what_is_not_as_it_was_written_ends_in_a_named_error(folder, name, damage):
    path = folder / name
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "altered":
        path.write_bytes(
            data.replace(b"dog", b"cat", 1) if name == INDEX else data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]
        )
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes((folder / "00000.safetensors").read_bytes())
    with pytest.raises(MissingFile if damage == "gone" else CorruptFile) as refused:
        load_attention(folder).of("cat", which=MapChoice(query=2))
    assert "make the maps again" in str(refused.value) or "attention_maps" in str(refused.value) or damage == "gone"


def test_maps_under_an_erasure_are_not_those_without_it(folder, tmp_path):
    subject = tiny_sd()
    edit = Uce()(subject, tiny_concept())
    with edit.on(subject):
        with pytest.raises(ValueError, match="other weight_hash"):
            attention_maps(subject, QUERIES, folder=folder, sampling=SAMPLING)
        maps = attention_maps(subject, QUERIES, folder=tmp_path / "edited", sampling=SAMPLING)
    assert not torch.equal(maps.of("cat"), load_attention(folder).of("cat"))
    guard = NegativePrompt("a dog")(subject, tiny_concept())
    with guard.on(subject):
        with pytest.raises(ValueError, match=r"other on \(\[\], now \['negative_prompt of cat"):
            attention_maps(subject, QUERIES, folder=folder, sampling=SAMPLING)
        guarded = attention_maps(subject, QUERIES, sampling=SAMPLING)
    first = MapChoice(steps=[0])  # before the guard has led the walk elsewhere; its own passes are none of the maps
    torch.testing.assert_close(guarded.of("cat", which=first), load_attention(folder).of("cat", which=first))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda v: v.update(format="concept_probe.attention/9"), WrongFile, "this version reads"),
        (lambda v: v["files"][1].update(first=1), CorruptFile, "does not follow on the file before it"),
        (lambda v: v.update(complete=False), CorruptFile, "it says complete: False, with 3 of 3 prompts"),
        (lambda v: v["files"][1].update(file="../00001.safetensors"), CorruptFile, "00000.safetensors"),
        (lambda v: v["files"][1].update(grids=[[2, 2]] * 4), CorruptFile, "the index tells of"),
        (lambda v: v["header"].pop("layers"), CorruptFile, "layers"),
    ],
)
def test_an_index_that_tells_something_else_is_refused(folder, change, error, said):
    path = folder / INDEX
    value = json.loads(path.read_text())
    change(value)
    value["seal"] = seal_of(value)
    path.write_text(json.dumps(value))
    with pytest.raises(error, match=said):
        load_attention(folder).of("cat", which=MapChoice(query=2))


def test_a_folder_of_maps_under_a_guard_says_what_differs(folder):
    guard = Blocklist()(tiny_sd(), tiny_concept())
    subject = tiny_sd()
    with guard.on(subject), pytest.raises(ValueError, match=r"with other on \(\[\], now \['blocklist of cat"):
        attention_maps(subject, QUERIES, folder=folder, sampling=SAMPLING)
    given = torch.zeros(len(QUERIES), 3, *subject.picture_size)
    with pytest.raises(ValueError, match=r"with other pictures \(None, now '"):
        attention_maps(subject, QUERIES, pictures=given, folder=folder, sampling=SAMPLING)
