"""Files are whole or absent, and hashes are those of files and models that were made before."""

from __future__ import annotations

import hashlib
import multiprocessing
import os

import pytest
import torch

from concept_probe.storage import (
    UNFINISHED,
    CorruptFile,
    append_line,
    bytes_sha256,
    check_file,
    content_sha256,
    file_sha256,
    read_json,
    read_tensors,
    refuse_pickle,
    remove_unfinished,
    tensors_sha256,
    text_sha256,
    write_bytes,
    write_json,
    write_sealed,
    write_tensors,
    write_text,
)

TENSORS = {
    "b": torch.arange(6.0).view(2, 3),
    "a": torch.tensor(3, dtype=torch.int64),
    "none": torch.zeros(0, 4, dtype=torch.bfloat16),
    "mask": torch.tensor([True, False]),
}
WRITERS = {
    "bytes": lambda path: write_bytes(path, b"new"),
    "text": lambda path: write_text(path, "new"),
    "json": lambda path: write_json(path, {"new": 1}),
    "tensors": lambda path: write_tensors(path, TENSORS),
    "sealed": lambda path: write_sealed(path, TENSORS, {}),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_writer_makes_folders_and_leaves_the_file_alone(write, tmp_path):
    path = tmp_path / "a" / "b" / "file.safetensors"
    write(path)
    first = path.read_bytes()
    write(path)
    assert path.read_bytes() == first and [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_what_fails_before_the_end_leaves_the_old_file_and_nothing_else(call, write, tmp_path, monkeypatch):
    path = tmp_path / "file.safetensors"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"):
        write(path)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == [path.name]


def _write(path, letter):
    for _ in range(20):
        write_text(path, letter * 20000)


def test_writers_of_one_file_never_mix(tmp_path):
    path = tmp_path / "file.txt"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    while any(w.is_alive() for w in writers):
        if path.is_file():
            assert set(path.read_text()) in ({"a"}, {"b"})
    assert all(w.exitcode == 0 for w in writers) and [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_leftovers_of_one_file_are_removed_and_those_of_another_kept(tmp_path):
    for name in (f"a.json.1{UNFINISHED}", f"b.json.1{UNFINISHED}", "a.json"):
        (tmp_path / name).write_text("")
    remove_unfinished(tmp_path, "a.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", f"b.json.1{UNFINISHED}"]
    remove_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_tensors_come_back_and_shared_memory_is_written_apart(tmp_path):
    whole = torch.arange(8.0)
    write_sealed(tmp_path / "x.safetensors", {**TENSORS, "whole": whole, "half": whole[:4]}, {"step": "3"})
    found, metadata = read_tensors(tmp_path / "x.safetensors", "try again")
    assert metadata == {"step": "3"} and torch.equal(found["half"], whole[:4])
    assert all(torch.equal(found[name], x) and found[name].dtype == x.dtype for name, x in TENSORS.items())


def test_a_changed_byte_is_found(tmp_path):
    path = tmp_path / "x.safetensors"
    write_sealed(path, TENSORS, {})
    check_file(path, file_sha256(path), "x.json", "try again")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        CorruptFile, match=r"x\.safetensors: altered: the seal of its tensors and metadata is .* was written; try again"
    ):
        read_tensors(path, "try again")
    with pytest.raises(CorruptFile, match=r"truncated or altered: sha256 is .*, x\.json says 0; try again"):
        check_file(path, "0", "x.json", "try again")
    path.write_bytes(data[:-3])
    with pytest.raises(CorruptFile, match="not a whole safetensors file"):
        read_tensors(path, "try again")


@pytest.mark.parametrize("text,check", [('{"a": 1', "not whole JSON"), ("[1]", "a JSON list, not an object")])
def test_json_that_is_no_object_is_named(tmp_path, text, check):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(CorruptFile, match=rf"x\.json: {check}.*; try again"):
        read_json(tmp_path / "x.json", "try again")


def test_json_keeps_words_readable_and_says_what_it_cannot_hold(tmp_path):
    write_json(tmp_path / "x.json", {"b": "Größe", "a": 1}, indent=2, sort_keys=True)
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "a": 1,\n  "b": "Größe"\n}\n'
    assert read_json(tmp_path / "x.json", "") == {"b": "Größe", "a": 1}
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "y.json", {"a": {1}})
    write_json(tmp_path / "y.json", {"a": tmp_path}, default=str)
    assert read_json(tmp_path / "y.json", "") == {"a": str(tmp_path)}


def test_pickles_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is a pickle, which can run code"):
        refuse_pickle(tmp_path / "weights.pt")
    refuse_pickle(tmp_path / "weights.safetensors")


def test_lines_are_appended_whole_and_a_cut_one_is_dropped(tmp_path):
    path = tmp_path / "folder" / "rows.jsonl"
    append_line(path, "first")
    append_line(path, "Größe")
    with path.open("ab") as file:
        file.write(b"cut in the mid")
    append_line(path, "third")
    assert path.read_text(encoding="utf-8") == "first\nGröße\nthird\n"
    with pytest.raises(ValueError, match="holds more than one line"):
        append_line(path, "a\nb")


def test_a_line_that_cannot_be_written_is_absent(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    append_line(path, "first")

    real = os.write

    def full(descriptor, data):
        if len(data) < 7:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:3])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        append_line(path, "second")
    monkeypatch.undo()
    assert path.read_text() == "first\n"


def test_hashes_are_those_that_files_and_edits_hold():
    """Written out once more: a weight hash in an edit, or a seal in a file, must not change."""
    weights, seal = hashlib.sha256(b"before\n"), hashlib.sha256()
    for name, x in TENSORS.items():
        weights.update(f"{name} {tuple(x.shape)} {x.dtype}\n".encode())
        weights.update(x.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    for name, x in sorted(TENSORS.items()):
        seal.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        seal.update(x.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    assert tensors_sha256(TENSORS.items(), "before\n") == weights.hexdigest()
    assert content_sha256(TENSORS) == seal.hexdigest()
    assert tensors_sha256([("x", torch.arange(6.0).view(2, 3).mT)]) == tensors_sha256(
        [("x", torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]))]
    )
    lone = torch.arange(6.0).view(2, 3)[1:, 0]  # a stride of 3, and contiguous
    assert tensors_sha256([("x", lone)]) == tensors_sha256([("x", torch.tensor([3.0]))])
    assert text_sha256("Größe") == bytes_sha256("Größe".encode()) == hashlib.sha256("Größe".encode()).hexdigest()
