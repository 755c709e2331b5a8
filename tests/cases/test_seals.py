"""What a file says of itself and of others: altered manifests, states and autoencoders are found."""

from __future__ import annotations

import json

import pytest

from concept_probe.activations import Activations
from concept_probe.learn import save_sae
from concept_probe.storage import CorruptFile
from tests.cases.made import trained
from tests.fuzz.formats import FORMATS


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
