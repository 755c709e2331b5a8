"""The store: shards that are whole, checked, resumable, and shuffled at constant memory."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from concept_probe.activations import Activations, CaptureOptions, DamagedShard, capture, shard
from concept_probe.activations.shuffle import permuted
from concept_probe.families import adopt
from concept_probe.registry import UnknownName
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.transformers import tiny_flux
from concept_probe.types import Prompt, Query, Sampling, Site

WORDS = ["cat", "dog", "sun", "red", "thing"]
PROMPTS = [Prompt(f"{a} {b} {c}") for a in WORDS for b in WORDS for c in WORDS[:3]]


@pytest.fixture(scope="module")
def subject():
    return tiny_sd()


def store(subject, folder, **more):
    return capture(
        subject, PROMPTS, roles=["text_stream"], folder=folder, options=CaptureOptions(shard_rows=500), **more
    )


def test_shards_together_are_the_rows_of_one(subject, tmp_path):
    one = capture(subject, PROMPTS, roles=["text_stream"])
    store(subject, tmp_path / "many")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) == 3
    again = Activations.open(tmp_path / "many")
    for site in one.sites:
        assert again.rows(site) == one.rows(site) == 75 * 20 and again.width(site) == 16
        assert torch.equal(again.read(site).x, one.read(site).x)
        assert all(torch.equal(again.read(site).columns[c], one.read(site).columns[c]) for c in one.read(site).columns)
    assert not again.read(one.sites[0], columns=False).columns


def test_another_site_is_refused_with_the_nearest(subject, tmp_path):
    with pytest.raises(UnknownName, match="nearest: 'text_encoder/encoder"):
        store(subject, tmp_path).read(Site("text_encoder", "encoder.layers.7"))


def test_the_manifest_says_what_every_row_is(subject, tmp_path):
    import json

    store(subject, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["header"]["weight_hash"] == subject.weight_hash()
    assert manifest["header"]["prompts"][1] == ["cat cat dog", None, None, 0]
    assert len(manifest["header"]["prompts_sha256"]) == 64
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0] or manifest["versions"]["torch"]
    assert all(len(s["sha256"]) == 64 for s in manifest["shards"])


@pytest.mark.parametrize("kind", ["layers left out", "size of pictures"])
def test_a_store_of_a_model_that_reads_unusually_opens_again_and_is_no_other_s(kind, tmp_path):
    usual: Any = tiny_sd() if kind == "layers left out" else tiny_flux()
    unusual: Any = adopt(usual.pipeline, usual.name, clip_skip=1 if kind == "layers left out" else 0)
    if kind == "size of pictures":
        unusual.picture_size = (24, 16)
    written = capture(unusual, PROMPTS[:2], roles=["text_out"], folder=tmp_path)
    opened = Activations.open(tmp_path)
    assert torch.equal(opened.read(opened.sites[0]).x, written.read(written.sites[0]).x)
    assert capture(unusual, PROMPTS[:2], roles=["text_out"], folder=tmp_path).complete
    with pytest.raises(ValueError, match=r"holds another capture: its (weight_hash|reads) is"):
        capture(usual, PROMPTS[:2], roles=["text_out"], folder=tmp_path)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 65, 1000, 4097])
def test_the_shuffle_is_one_to_one(n):
    for seed in (0, 1):
        assert sorted(permuted(torch.arange(n), n, seed).tolist()) == list(range(n))


def test_the_shuffle_mixes():
    n = 10_000
    order = permuted(torch.arange(n), n, 3).double()
    place = torch.arange(n).double()
    assert abs(float(torch.corrcoef(torch.stack([place, order]))[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([order[1:], order[:-1]]))[0, 1])) < 0.03
    # Random order of n: a quarter of neighbours lie within 0.134 n of each other.
    near = ((order[1:] - order[:-1]).abs() < 0.134 * n).double().mean()
    assert 0.23 < float(near) < 0.27


def test_an_epoch_gives_every_row_once_and_no_two_epochs_are_alike(subject, tmp_path):
    acts = store(subject, tmp_path)
    site = acts.sites[1]
    epochs = list(acts.batches(site, 100, seed=1, epochs=2))
    assert len(epochs) == 30 and all(b.shape == (100, 16) for b in epochs)

    def rows(batches):
        return sorted(map(tuple, torch.cat(batches).tolist()))

    whole = sorted(map(tuple, acts.read(site).x.tolist()))
    assert rows(epochs[:15]) == whole == rows(epochs[15:])
    assert not torch.equal(epochs[0], epochs[15])
    again = list(acts.batches(site, 100, seed=1, epochs=2))
    assert all(torch.equal(a, b) for a, b in zip(epochs, again, strict=True))
    assert not torch.equal(epochs[0], next(acts.batches(site, 100, seed=2)))
    late = list(acts.batches(site, 100, seed=1, epochs=2, start=17))
    assert len(late) == 13 and torch.equal(late[0], epochs[17])


def test_batches_do_not_depend_on_how_rows_were_sharded(subject, tmp_path):
    many, one = store(subject, tmp_path), capture(subject, PROMPTS, roles=["text_stream"])
    assert torch.equal(next(many.batches(many.sites[0], 64)), next(one.batches(one.sites[0], 64)))


def test_too_large_a_batch_is_refused_at_once(subject, tmp_path):
    acts = store(subject, tmp_path)
    with pytest.raises(ValueError, match=r"a batch of 9999 rows was asked for .* has 1500"):
        acts.batches(acts.sites[0], 9999)


@pytest.mark.parametrize("harm", ["truncated", "altered", "missing"])
def test_a_damaged_shard_is_named_and_the_others_stay_readable(subject, tmp_path, harm):
    acts = store(subject, tmp_path)
    site = acts.sites[0]
    first, *_, second = sorted(tmp_path.glob("*.safetensors"))
    whole = acts.read(site).x
    data = bytearray(second.read_bytes())
    if harm == "truncated":
        second.write_bytes(data[:-10])
    elif harm == "altered":
        data[-1] ^= 1
        second.write_bytes(data)
    else:
        second.unlink()
    check = {"truncated": "size", "altered": "sha256", "missing": "exists"}[harm]
    damaged = Activations.open(tmp_path)
    with pytest.raises(DamagedShard, match=f"{second.name}: failed the check '{check}'"):
        damaged.read(site)
    with pytest.raises(DamagedShard, match=second.name):
        list(damaged.batches(site, 100, epochs=1))
    assert list(damaged.damaged()) == [second.name]
    good = damaged.good()
    assert torch.equal(good.read(site).x, whole[: good.rows(site)]) and 0 < good.rows(site) < len(whole)
    assert len(list(good.batches(site, 100, epochs=1))) == good.rows(site) // 100
    assert first.is_file()


def test_a_rerun_does_nothing_twice(subject, tmp_path):
    store(subject, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.safetensors")}
    hook = subject.components["text_encoder"].register_forward_pre_hook(lambda *_: pytest.fail("it ran again"))
    try:
        acts = store(subject, tmp_path)
    finally:
        hook.remove()
    assert acts.complete
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.safetensors")} == before


def test_another_capture_is_refused_with_both_values(subject, tmp_path):
    store(subject, tmp_path)
    with pytest.raises(ValueError, match=r'its kinds is null, asked for is \["eos"\]; nothing was written'):
        store(subject, tmp_path, kinds=["eos"])
    with pytest.raises(ValueError, match="its prompts_sha256 is"):
        capture(subject, PROMPTS[1:], roles=["text_stream"], folder=tmp_path)


def test_another_model_s_store_is_refused(subject, tmp_path):
    store(subject, tmp_path)
    other = tiny_sd(seed=1)
    other.name = subject.name
    with pytest.raises(ValueError) as caught:
        store(other, tmp_path)
    assert subject.weight_hash() in str(caught.value) and other.weight_hash() in str(caught.value)


def test_a_folder_of_something_else_is_left_alone(subject, tmp_path):
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(ValueError, match=r"holds 'thesis.tex' but no manifest.json"):
        store(subject, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(FileNotFoundError, match=r"holds no manifest.json"):
        Activations.open(tmp_path)


@pytest.mark.slow
def test_a_failing_run_is_continued_from_the_last_whole_batch(subject, tmp_path):
    queries = [Query(p, i) for i, p in enumerate(PROMPTS[:9])]
    options = {"roles": ["cross_out"], "sampling": Sampling(steps=2, batch=3), "options": CaptureOptions(shard_rows=40)}
    whole = capture(subject, queries, **options)
    count = 0

    def fail(*_):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt

    hook = subject.module(subject.sites("cross_out")[0]).register_forward_hook(fail)
    try:
        with pytest.raises(KeyboardInterrupt):
            capture(subject, queries, folder=tmp_path, **options)
    finally:
        hook.remove()
    with pytest.warns(UserWarning, match=r"was cut off after \d of 9 prompts"):
        cut = Activations.open(tmp_path)
    assert not cut.complete
    acts = capture(subject, queries, folder=tmp_path, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Activations.open(tmp_path)
    for site in whole.sites:
        assert torch.equal(acts.read(site).x, whole.read(site).x)
        assert all(torch.equal(acts.read(site).columns[c], v) for c, v in whole.read(site).columns.items())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory figures of Linux")
def test_memory_is_constant(tmp_path):
    """200 MB of rows go through the writer and through batches in less than 110 MB, and do not add up.

    In a process of its own: what an earlier test freed, the allocator may have kept.
    """
    script = Path(__file__).with_name("memory_run.py")
    ran = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=True)
    figures = json.loads(ran.stdout)
    assert figures["bytes"] > 200e6
    assert figures["most_mb"] < 110


def test_mapped_tensors_are_the_file_s(tmp_path):
    tensors = {
        "a": torch.randn(5, 3),
        "b": torch.arange(5, dtype=torch.int32),
        "c": torch.randn(4, 2).bfloat16(),
        "d": torch.randn(7).half(),
    }
    record = shard.write_shard(tmp_path / "x.safetensors", tensors)
    shard.check_shard(tmp_path / "x.safetensors", record)
    mapped = shard.map_shard(tmp_path / "x.safetensors")
    assert all(torch.equal(mapped.tensors[k], v) and mapped.tensors[k].dtype == v.dtype for k, v in tensors.items())
    out = torch.empty(2, 3)
    mapped.read_into("a", 3, out)
    assert torch.equal(out, tensors["a"][3:])
    mapped.tensors["a"].zero_()
    shard.check_shard(tmp_path / "x.safetensors", record)
