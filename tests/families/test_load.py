"""Names, folders and hub ids load the same way, and what cannot be loaded says why and what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from concept_probe.families import UNetSubject, load
from concept_probe.registry import UnknownName
from concept_probe.testing.models import save_model
from concept_probe.testing.models.diffusion import DIFFUSION
from concept_probe.types import Prompt, Query, Sampling

ROOT = Path(__file__).parents[2]
QUERIES = [Query(Prompt("a cat"), 3)]


@pytest.fixture(scope="module", params=DIFFUSION)
def saved(request, tmp_path_factory):
    subject = DIFFUSION[request.param](seed=2)
    return subject, save_model(subject, tmp_path_factory.mktemp("saved") / request.param)


@pytest.mark.slow
def test_a_folder_comes_back_as_it_was(saved, capfd):
    subject, folder = saved
    capfd.readouterr()
    for source in (folder, str(folder)):
        again = load(source)
        assert isinstance(again, UNetSubject)
        assert again.weight_hash() == subject.weight_hash()
        assert again.name == folder.name
        assert again.roles() == subject.roles()
        assert torch.equal(again.generate(QUERIES, Sampling(2)), subject.generate(QUERIES, Sampling(2)))
    assert not any(p.requires_grad for m in again.components.values() for p in m.parameters())
    assert not any(m.training for m in again.components.values())
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@pytest.mark.slow
def test_dtype(saved):
    subject, folder = saved
    half = load(folder, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.device == torch.device("cpu")
    assert half.weight_hash() != subject.weight_hash()
    pictures = half.generate(QUERIES, Sampling(2))
    assert pictures.dtype == torch.float32
    # One seed is one noise in every precision.
    torch.testing.assert_close(pictures, subject.generate(QUERIES, Sampling(2)), atol=0.1, rtol=0)


@pytest.mark.slow
def test_weights_shipped_in_half_precision_load_in_single(saved, tmp_path):
    subject, folder = saved
    half = load(folder, dtype=torch.float16)
    assert half.components["vae"].dtype == torch.float32  # force_upcast
    save_model(half, tmp_path / "half")
    again = load(tmp_path / "half")
    assert {p.dtype for m in again.components.values() for p in m.parameters()} == {torch.float32}
    torch.testing.assert_close(
        again.generate(QUERIES, Sampling(2)), subject.generate(QUERIES, Sampling(2)), atol=0.02, rtol=0
    )


def test_a_pickle_is_refused(saved, tmp_path):
    subject, _ = saved
    save_model(subject, tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(
        ValueError, match=r"unet holds its weights as a pickle \(diffusion_pytorch_model.bin\).*refused"
    ):
        load(tmp_path)


def test_a_truncated_weight_file_is_named(saved, tmp_path):
    subject, _ = saved
    save_model(subject, tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(FileNotFoundError, match=r"could not be loaded: .*"):
        load(tmp_path)


def test_a_hub_id_that_cannot_be_had_says_what_to_do():
    with pytest.raises(FileNotFoundError) as caught:
        load("someone/some-diffusion-model")
    said = str(caught.value)
    assert "hub id 'someone/some-diffusion-model' could not be loaded" in said
    for mend in ("spelling", "HF_HUB_OFFLINE", "give a folder", "safetensors"):
        assert mend in said


@pytest.mark.slow
def test_a_hub_id_loads_as_its_folder_does(saved, tmp_path):
    """From a cache laid out as the hub's client lays it out; in a process of its own, since the client reads its
    environment once."""
    subject, folder = saved
    repository = tmp_path / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))
    code = "from concept_probe.families import load; s = load('someone/tiny'); print(s.name, s.weight_hash())"
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.stdout.split() == ["someone/tiny", subject.weight_hash()], done.stderr


def test_unknown_names_and_folders(tmp_path):
    with pytest.raises(UnknownName, match=r"subject 'emojy' not found; nearest: 'emoji'.*a folder, or a hub id"):
        load("emojy")
    with pytest.raises(FileNotFoundError, match=r"folder '/no/such/place' not found"):
        load("/no/such/place")
    with pytest.raises(FileNotFoundError, match="not found"):
        load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"could not be loaded: .*; it must hold model_index.json"):
        load(tmp_path)


def test_another_kind_of_pipeline_is_refused(saved, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "KolorsPipeline"}))
    with pytest.raises(UnknownName, match=r"pipeline class 'KolorsPipeline' not found; nearest: .*FluxPipeline"):
        load(tmp_path)


def test_a_shipped_name_is_looked_up_in_the_testbed(saved, monkeypatch):
    from concept_probe import testbed

    subject, folder = saved
    monkeypatch.setattr(testbed, "EMBEDDED", {"emoji": ""})
    monkeypatch.setattr(testbed, "folder", lambda name: folder)
    assert load("emoji").name == "emoji"
    assert load("emoji").weight_hash() == subject.weight_hash()
