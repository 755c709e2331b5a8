"""Loading runs no code that a model brings, finds the one variant there is, and says in words what it can't read."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from concept_probe.families import load
from concept_probe.storage import WrongFile
from concept_probe.testing.models import save_model
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Prompt, Query, Sampling


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("saved")
    return {"sd": save_model(tiny_sd(), place / "sd"), "llama": save_model(LANGUAGE["llama"](), place / "llama")}


@pytest.fixture
def folder(saved, tmp_path) -> Callable[[str], Path]:
    return lambda name: shutil.copytree(saved[name], tmp_path / name)


def change(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


CODE = "open({mark!r}, 'w')\nfrom transformers import LlamaConfig as A, LlamaForCausalLM as B, LlamaTokenizer as T\n"
AUTO = {"AutoConfig": "mine.A", "AutoModelForCausalLM": "mine.B"}
FOREIGN = [
    ("llama", "config.json", {"model_type": "mine", "auto_map": AUTO}),
    ("llama", "config.json", {"attn_implementation": "somebody/kernel"}),
    ("llama", "tokenizer_config.json", {"tokenizer_class": "T", "auto_map": {"AutoTokenizer": ["mine.T", "mine.T"]}}),
    ("sd", "model_index.json", {"_class_name": ["mine", "Pipeline"]}),
    ("sd", "model_index.json", {"unet": ["mine", "UNet"]}),
    ("sd", "model_index.json", {"scheduler": ["mine", "Scheduler"]}),
]


@pytest.mark.parametrize(("name", "file", "keys"), FOREIGN)
def test_code_that_a_model_brings_is_neither_run_nor_asked_about(folder, monkeypatch, name, file, keys):
    place = folder(name)
    for part in (place, place / "unet", place / "scheduler"):
        if part.is_dir():
            (part / "mine.py").write_text(CODE.format(mark=str(place / "ran")))
    change(place / file, **keys)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises(ValueError, match=r"brings code of its own .* never run here"):
        load(place)
    assert not (place / "ran").exists()


def test_a_model_that_the_library_knows_is_read_by_the_library(folder):
    place = folder("llama")
    change(place / "config.json", auto_map=AUTO)
    (place / "mine.py").write_text(CODE.format(mark=str(place / "ran")))
    subject = load(place)
    assert type(subject.pipeline.model).__module__.startswith("transformers.models.llama")
    assert not (place / "ran").exists()


@pytest.mark.slow
def test_the_only_variant_is_taken_and_the_one_without_a_name_goes_first(tmp_path):
    subject = tiny_sd()
    subject.pipeline.to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    assert load(tmp_path, dtype=torch.float16).generate([Query(Prompt("a cat"))], Sampling(steps=1)).isfinite().all()
    for file in tmp_path.glob("*/*.fp16.safetensors"):
        shutil.copy(file, file.with_name(file.name.replace("fp16", "ema")))
    with pytest.raises(ValueError, match=r"several variants \(ema, fp16\)"):
        load(tmp_path)
    plain = tiny_sd(1)
    plain.pipeline.save_pretrained(tmp_path)
    assert load(tmp_path).weight_hash() == plain.weight_hash()


def test_the_only_variant_of_a_language_model_is_taken(folder):
    place = folder("llama")
    (place / "model.safetensors").rename(place / "model.fp16.safetensors")
    assert load(place).weight_hash() == LANGUAGE["llama"]().weight_hash()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes.*install what"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "install what is missing"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"hidden_size": 10**30}, "could not be loaded"),
        ({"model_type": ["llama"]}, "could not be loaded"),
    ],
)
def test_what_a_library_stumbles_over_is_told_in_words(folder, keys, said):
    place = folder("llama")
    change(place / "config.json", **keys)
    with pytest.raises((FileNotFoundError, ValueError), match=said):
        load(place)


def test_a_configuration_that_is_no_table_is_told_in_words(folder):
    place = folder("llama")
    (place / "config.json").write_text("[1]")
    with pytest.raises(FileNotFoundError, match=r"config.json holds a list, not a table"):
        load(place)


OUTSIDE = ["../out.safetensors", "{top}/out.safetensors", "..\\out.safetensors", 3]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("model", ["sd", "llama"])
def test_an_index_that_names_a_file_outside_the_folder_is_refused(folder, tmp_path, model, name):
    place = folder(model)
    weights = next((place / "unet" if model == "sd" else place).glob("*.safetensors"))
    shutil.move(weights, weights.parent.parent / "out.safetensors")
    named = name.format(top=weights.parent.parent) if isinstance(name, str) else name
    index = weights.with_name(weights.name + ".index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"x.weight": named}}))
    with pytest.raises(
        WrongFile, match=r"index\.json: the file in weight_map .* is no name inside the folder; get the"
    ):
        load(place)


def test_a_component_outside_the_folder_is_refused(folder):
    place = folder("sd")
    index = json.loads((place / "model_index.json").read_text())
    change(place / "model_index.json", **{"../unet": index["unet"]})
    with pytest.raises(WrongFile, match=r"component in model_index.json '../unet' is no name inside the folder"):
        load(place)


def test_files_that_are_links_are_read_as_from_the_cache_of_the_hub(folder, tmp_path):
    place = folder("llama")
    (tmp_path / "blobs").mkdir()
    name = "model-00001-of-00001.safetensors"
    shutil.move(place / "model.safetensors", tmp_path / "blobs" / "0a")
    (place / name).symlink_to("../blobs/0a")
    with safe_open(place / name, "pt") as file:
        weights = dict.fromkeys(file.keys(), name)
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))
    assert load(place).weight_hash() == LANGUAGE["llama"]().weight_hash()


DAMAGE = {
    "cut": (lambda data: data[:-100], FileNotFoundError, "not a whole safetensors file"),
    "empty": (lambda data: b"", FileNotFoundError, "not a whole safetensors file"),
    "pickle": (lambda data: b"\x80\x02}q\x00.", WrongFile, "is a pickle, which can run code"),
    "zip": (lambda data: b"PK\x03\x04\x00\x00\x08\x08" + bytes(60), WrongFile, "is a pickle, which can run code"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(("model", "part"), [("sd", "unet"), ("sd", "text_encoder"), ("llama", ".")])
def test_a_damaged_file_of_weights_is_named_with_the_check(folder, model, part, damage):
    change_bytes, error, said = DAMAGE[damage]
    weights = next((folder(model) / part).glob("*.safetensors"))
    weights.write_bytes(change_bytes(weights.read_bytes()))
    with pytest.raises(error, match=rf"{re.escape(str(weights))}.*{said}"):
        load(weights.parent if part == "." else weights.parent.parent)


@pytest.mark.parametrize(
    ("text", "said"),
    [("[" * 200_000, "lists and objects within one another|not whole JSON"), ("", "not whole JSON"), ("\xff", "UTF-8")],
)
@pytest.mark.parametrize(
    ("model", "file"), [("sd", "unet/config.json"), ("sd", "model_index.json"), ("llama", "config.json")]
)
def test_a_damaged_configuration_is_named_with_the_check(folder, model, file, text, said):
    place = folder(model)
    (place / file).write_text(text + "]" * text.count("["), "latin-1")
    with pytest.raises(FileNotFoundError, match=rf"{re.escape(str(place / file))}: .*({said})"):
        load(place)
