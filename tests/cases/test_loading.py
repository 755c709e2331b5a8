"""Loading runs no code that a model brings, finds the one variant there is, and says in words what it can't read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from concept_probe.families import load
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
