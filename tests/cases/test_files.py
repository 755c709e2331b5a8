"""Files on a full disk, through links, from two writers at once, and with names that lead elsewhere."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from concept_probe.activations import Activations, CaptureOptions, capture
from concept_probe.bench import RowStore, SweepRow
from concept_probe.concepts.files import load_concept
from concept_probe.learn import Run, TrainingOptions, save_sae, train_sae, train_saes
from concept_probe.learn.train.settings import PassOptions
from concept_probe.storage import (
    CorruptFile,
    FolderInUse,
    MissingFile,
    WrongFile,
    append_line,
    inside,
    only_writer,
    parse_json,
    read_picture,
    read_tensors,
    tensor_entries,
    write_sealed,
    write_tensors,
    write_text,
)
from concept_probe.storage import tensors as tensor_files
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt, Site
from tests.fuzz.formats import FORMATS

PROMPTS = [Prompt("a red cat"), Prompt("a dog"), Prompt("the sun")]
SITE = Site("synthetic", "rows")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="rights, links and locks of POSIX")


@pytest.fixture(scope="module")
def subject():
    return tiny_sd()


def row(key: str) -> SweepRow:
    return SweepRow(key, "uce", "camel", "none", 0, "done", {"after": [1, 2]})


def trained(folder: Path, **more):
    rows = (torch.randn(64, 8, generator=torch.Generator().manual_seed(i)) for i in range(4))
    options = TrainingOptions(batch=64, dead_after=128, save_every=2)
    return train_sae(rows, site=SITE, k=2, expansion=2, samples=256, folder=folder, options=options, **more)


FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from concept_probe.bench import RowStore, SweepRow
from concept_probe.storage import write_sealed, write_text

folder = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = RowStore(folder / "rows.jsonl")
store.append(SweepRow("a", "uce", "camel", "none", 0, "done"))
write_text(folder / "page.html", "old")
write_sealed(folder / "x.safetensors", {"x": torch.ones(3)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
tries = (
    lambda: store.append(SweepRow("b", "uce", "camel", "none", 0, "done", {"long": "x" * 500})),
    lambda: write_text(folder / "page.html", "new" * 500),
    lambda: write_sealed(folder / "x.safetensors", {"x": torch.ones(300)}, {}),
)
for one in tries:
    try:
        one()
    except OSError as error:
        print(type(error).__name__, error.errno)
    else:
        print("no error")
"""


@POSIX
def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["OSError 27"] * 3
    assert RowStore(tmp_path / "rows.jsonl").rows() == {"a": SweepRow("a", "uce", "camel", "none", 0, "done")}
    assert (tmp_path / "page.html").read_text() == "old"
    assert torch.equal(read_tensors(tmp_path / "x.safetensors", "", sealed=True)[0]["x"], torch.ones(3))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.html", "rows.jsonl", "rows.jsonl.lock", "x.safetensors"]


def test_a_row_whose_flush_fails_is_not_there(tmp_path, monkeypatch):
    store = RowStore(tmp_path / "rows.jsonl")
    store.append(row("a"))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.append(row("b"))
    monkeypatch.undo()
    store.append(row("c"))
    assert set(store.rows()) == {"a", "c"}


@POSIX
@pytest.mark.parametrize("write", [lambda p: write_text(p, "x"), lambda p: write_tensors(p, {"x": torch.ones(2)})])
def test_rights_are_those_that_the_umask_leaves(write, tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "file.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.safetensors").stat().st_mode) == 0o640


@POSIX
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.lock"])
def test_no_link_is_followed(name, tmp_path):
    foreign = tmp_path / "thesis.txt"
    foreign.write_text("one\ntwo")
    (tmp_path / name).symlink_to(foreign)
    with pytest.raises(WrongFile, match="a symbolic link, which is not followed"):
        RowStore(tmp_path / "rows.jsonl").append(row("a"))
    write_text(tmp_path / name, "ours")
    assert foreign.read_text() == "one\ntwo" and not (tmp_path / name).is_symlink()


@pytest.mark.parametrize("text", ["one\ntwo", '{"a": 1}', "[1,\n2"])
def test_what_is_not_ours_is_not_cut(text, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(WrongFile, match="its last line is none that was written here"):
        RowStore(path).append(row("a"))
    assert path.read_text() == text


def test_a_row_without_its_newline_is_a_row(tmp_path):
    store = RowStore(tmp_path / "rows.jsonl")
    store.append(row("a"))
    store.path.write_bytes(store.path.read_bytes().rstrip(b"\n"))
    assert set(store.rows()) == {"a"}
    store.append(row("b"))
    assert set(store.rows()) == {"a", "b"} and store.path.read_bytes().count(b"\n") == 2


def test_an_altered_row_is_named_by_its_line(tmp_path):
    store = RowStore(tmp_path / "rows.jsonl")
    store.append(row("a"))
    store.append(row("b"))
    store.path.write_text(store.path.read_text().replace("[1, 2]", "[1, 3]", 1))
    with pytest.raises(CorruptFile, match=r"rows\.jsonl, line 1: altered.*delete the line"):
        store.rows()


def test_rows_of_before_have_no_seal_and_are_read(tmp_path):
    from dataclasses import asdict

    append_line(tmp_path / "rows.jsonl", json.dumps(asdict(row("a"))))
    assert RowStore(tmp_path / "rows.jsonl").rows() == {"a": row("a")}


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


def test_a_prompt_that_is_missing_in_a_manifest_is_found(tmp_path):
    FORMATS["store manifest"].write(tmp_path / "x")
    path = tmp_path / "x" / "manifest.json"
    data = json.loads(path.read_text())
    del data["header"]["prompts"][1]
    path.write_text(json.dumps(data))
    with pytest.raises(CorruptFile, match="the prompts have sha256"):
        Activations.open(tmp_path / "x")


def test_a_manifest_that_names_a_file_elsewhere_is_refused(tmp_path):
    FORMATS["store manifest"].write(tmp_path / "x")
    path = tmp_path / "x" / "manifest.json"
    data = json.loads(path.read_text())
    data["shards"][0]["file"] = "../x/000000.safetensors"
    data.pop("seal")
    path.write_text(json.dumps({**data, "format": 1}))
    with pytest.raises(CorruptFile, match=r"shards\[0\]\.file should be a name like 000000\.safetensors"):
        Activations.open(tmp_path / "x")


def test_a_store_of_before_is_read_and_sealed_by_a_rerun(subject, tmp_path):
    options = CaptureOptions(shard_rows=20)
    acts = capture(subject, PROMPTS, roles=["text_stream"], folder=tmp_path, options=options)
    path = tmp_path / "manifest.json"
    sealed = path.read_bytes()
    data = json.loads(sealed)
    data.pop("seal")
    path.write_text(json.dumps({**data, "format": 1}))
    assert torch.equal(Activations.open(tmp_path).read(acts.sites[0]).x, acts.read(acts.sites[0]).x)
    path.write_text(json.dumps({**data, "format": 1, "complete": False}))
    capture(subject, PROMPTS, roles=["text_stream"], folder=tmp_path, options=options)
    assert path.read_bytes() == sealed, "killed before its last word, it ends in the undisturbed bytes"


def test_a_state_whose_step_was_altered_is_refused(tmp_path):
    trained(tmp_path)
    path = tmp_path / "training.safetensors"
    data = path.read_bytes()
    assert data.count(b'"step":"4"') == 1
    path.write_bytes(data.replace(b'"step":"4"', b'"step":"2"'))
    with pytest.raises(CorruptFile, match=r"training\.safetensors: altered: the seal of its tensors and metadata"):
        trained(tmp_path)


def test_an_altered_scale_of_an_autoencoder_is_refused(tmp_path):
    from concept_probe.learn import load_sae

    save_sae(trained(tmp_path / "run"), tmp_path)
    path = tmp_path / "cfg.json"
    data = json.loads(path.read_text())
    data["metadata"]["concept_probe"]["scale"] *= 2
    path.write_text(json.dumps(data))
    with pytest.raises(CorruptFile, match=r"cfg\.json: altered: the seal"):
        load_sae(tmp_path)
    del data["metadata"]["concept_probe"]["seal"]
    path.write_text(json.dumps(data))
    with pytest.raises(CorruptFile, match=r"cfg\.json: it has no seal, which was written with it"):
        load_sae(tmp_path)


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


def test_tensors_are_written_as_the_library_writes_them(tmp_path):
    from safetensors.torch import save

    tensors = {n.lower(): torch.zeros(3, 2, dtype=t) for n, t in tensor_files.TENSOR_TYPES.items()}
    tensors |= {"scalar": torch.tensor(2.0), "empty": torch.zeros(0, 4), "é": torch.arange(5)}
    write_tensors(tmp_path / "x.safetensors", tensors, {"k": "é"})
    assert (tmp_path / "x.safetensors").read_bytes() == save(tensors, {"k": "é"})
    write_sealed(tmp_path / "y.safetensors", tensors, {"b": "1", "a": "2"})
    first = (tmp_path / "y.safetensors").read_bytes()
    write_sealed(tmp_path / "y.safetensors", tensors, {"a": "2", "b": "1"})
    assert (tmp_path / "y.safetensors").read_bytes() == first


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


def test_a_store_is_of_the_state_of_its_subject(subject, tmp_path):
    from diffusers import DDIMScheduler

    from concept_probe.erasers.erasure.intervention import Intervention
    from concept_probe.types import Query, Sampling

    site = subject.sites("text_stream")[0]
    bare = capture(subject, PROMPTS, sites=[site], folder=tmp_path / "text")
    guard = Intervention("guard", "camel", {site: lambda x, moment: torch.ones_like(x)}, made_by={"method": "guard"})
    with guard.on(subject):
        with pytest.raises(ValueError, match=r"holds another capture: its on is null, asked for is .*guard of camel"):
            capture(subject, PROMPTS, sites=[site], folder=tmp_path / "text")
        guarded = capture(subject, PROMPTS, sites=[site], folder=tmp_path / "guarded")
        with subject.state.pristine():
            assert torch.equal(
                capture(subject, PROMPTS, sites=[site], folder=tmp_path / "text").read(site).x, bare.read(site).x
            )
    assert not torch.equal(guarded.read(site).x, bare.read(site).x)
    with pytest.raises(ValueError, match="another capture: its on is"), guard.scaled(2).on(subject):
        capture(subject, PROMPTS, sites=[site], folder=tmp_path / "guarded")

    more = {"roles": ["cross_out"], "sampling": Sampling(steps=2), "folder": tmp_path / "pictures"}
    capture(subject, [Query(PROMPTS[0], 0)], **more)
    own = subject.pipeline.scheduler
    try:
        subject.pipeline.scheduler = DDIMScheduler.from_config(own.config, beta_end=0.5)
        with pytest.raises(ValueError, match="its scheduler is"):
            capture(subject, [Query(PROMPTS[0], 0)], **more)
    finally:
        subject.pipeline.scheduler = own
