"""Adapters that hold less, or other, than they say: refused by name, never stretched."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import save_file

from concept_probe.erasers.interop import read_edit
from concept_probe.storage import MissingFile, WrongFile
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import tiny_gpt2, tiny_llama
from tests.interop.files import ATTENTION, DOWN, PAIR, RESNET, STEM, UP

peft = pytest.importorskip("peft")


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_that_are_promised_and_lacking_are_refused(bias, tmp_path):
    subject = tiny_gpt2()
    model = peft.get_peft_model(tiny_gpt2().components["model"], peft.LoraConfig(r=2, target_modules=["c_attn"]))
    model.save_pretrained(tmp_path)
    place = tmp_path / "adapter_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"bias": bias}))
    with pytest.raises(WrongFile, match=rf"promises trained biases \({bias}\), and its tensors hold no '.*bias'"):
        read_edit(tmp_path, subject)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"init_lora_weights": "pissa"}, "changed the base's weights too"),
        ({"peft_type": "IA3"}, "kind IA3"),
        ({"layer_replication": [[0, 1]]}, "several times"),
        ({"r": 3}, "says rank 3 for .* have 2"),
        ({"lora_alpha": "x"}, "no positive numbers"),
        ({"r": 2.5}, "ranks whole"),
        ({"r": math.inf}, "no positive numbers"),
        ({"rank_pattern": ["q_proj"]}, "no table of numbers by pattern"),
        ({"target_modules": ["q_proj", "up_proj"]}, "promises an adapter of 'model.layers.0.mlp.up_proj'"),
        ({"target_modules": r".*\.(q|k)_proj"}, "promises an adapter of .*k_proj"),
        ({"target_modules": ["v_proj"]}, "promises an adapter of .*v_proj"),
        (
            {"layers_to_transform": [0]},
            "hold 'model.layers.1.self_attn.q_proj' and 0 modules more that its .* doesn't name",
        ),
        ({"exclude_modules": ["layers.1.self_attn.q_proj"]}, "doesn't name; peft would leave them out"),
        (
            {"modules_to_save": ["lm_head"]},
            r"promises the whole of 'lm_head' \(modules_to_save\), and its tensors hold none",
        ),
        ({"target_modules": "("}, "target_modules is no pattern"),
        ({"target_modules": {"q_proj": 1}}, "neither a list of names nor a pattern"),
        ({"use_dora": True}, "a DoRA, and .*q_proj' has no magnitude"),
    ],
)
def test_what_an_adapter_s_configuration_says_besides_is_refused(config, said, tmp_path):
    subject = tiny_llama()
    model = peft.get_peft_model(tiny_llama().components["model"], peft.LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(tmp_path)
    place = tmp_path / "adapter_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | config))
    with pytest.raises(ValueError, match=said):
        read_edit(tmp_path, subject)
    place.unlink()
    with pytest.raises(WrongFile, match="which says how strong it acts"):
        read_edit(tmp_path / "adapter_model.safetensors", subject)


WRONG = {
    "a key too many": (PAIR | {"lora_unet_nowhere.lora_up.weight": UP}, "1 of its 2 parts .*'lora_unet_nowhere.lora_up.weight'"),
    "half a product": ({f"{STEM}.lora_down.weight": DOWN}, "lacks up"),
    "another size": ({f"{STEM}.lora_down.weight": DOWN, f"{STEM}.lora_up.weight": torch.ones(30, 2)}, r"a change of \(30, 16\)"),
    "two adapters": ({f"unet.{ATTENTION}.to_k.lora_A.{n}.weight": DOWN for n in "ab"}, "several adapters"),
    "a rotation": ({f"{STEM}.oft_blocks": DOWN}, "OFT"),
    "nothing": ({f"{STEM}.lora_down.weight": DOWN, f"{STEM}.lora_up.weight": UP * 0}, "changes nothing of 'tiny-sd-0'"),
    "no numbers": ({f"{STEM}.lora_down.weight": DOWN, f"{STEM}.lora_up.weight": UP * float("nan")}, "not finite"),
    "no tensors": ({}, "holds no weight"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused_by_name(what, tmp_path):
    tensors, said = WRONG[what]
    save_file({name: x.clone() for name, x in tensors.items()}, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=said):
        read_edit(tmp_path / "lora.safetensors", tiny_sd())


def test_a_folder_per_component_is_read_whole_or_not_at_all(tmp_path):
    subject = tiny_sd()
    kinds = {"unet": ["attn2.to_k"], "text_encoder": ["q_proj"]}
    for name, modules in kinds.items():
        model = peft.get_peft_model(tiny_sd().components[name], peft.LoraConfig(r=2, target_modules=modules))
        for key, x in model.named_parameters():
            if "lora_" in key:
                x.data.fill_(0.3)
        model.save_pretrained(tmp_path / name)
    touched = {where.partition("/")[0] for where in read_edit(tmp_path, subject).deltas}
    assert touched == set(kinds)
    (tmp_path / "unet" / "adapter_config.json").unlink()
    with pytest.raises(MissingFile, match=r"unet holds an adapter and no adapter_config\.json"):
        read_edit(tmp_path, subject)
    shutil.rmtree(tmp_path / "unet")
    assert {where.partition("/")[0] for where in read_edit(tmp_path, subject).deltas} == {"text_encoder"}


PLACE = "lora_unet_" + RESNET.replace(".", "_")


DAMAGED = {
    "a factor of no sides": {"lora_down.weight": torch.tensor(1.0), "lora_up.weight": torch.ones(32, 2, 1, 1)},
    "a factor of one side": {"lora_down.weight": torch.ones(2, 48, 3, 3), "lora_up.weight": torch.ones(64)},
    "rank zero": {"lora_down.weight": torch.ones(0, 48, 3, 3), "lora_up.weight": torch.ones(32, 0, 1, 1)},
    "a kernel of another rank": {
        "lora_down.weight": torch.ones(1, 48, 1, 1), "lora_up.weight": torch.ones(32, 2, 1, 1), "lora_mid.weight": torch.ones(2, 2, 3, 3),
    },
    "products of two sizes": {
        "hada_w1_a": torch.ones(1, 2), "hada_w1_b": torch.ones(2, 432), "hada_w2_a": torch.ones(32, 2), "hada_w2_b": torch.ones(2, 432),
    },
    "a core of another rank": {
        **{f"hada_w{i}_a": torch.ones(2, 32) for i in (1, 2)}, **{f"hada_w{i}_b": torch.ones(3 - i, 48) for i in (1, 2)},
        **{f"hada_t{i}": torch.ones(2, 2, 3, 3) for i in (1, 2)},
    },
    "turned factors": {"lokr_w1": torch.ones(2, 2), "lokr_w2_a": torch.ones(2, 16), "lokr_w2_b": torch.ones(2, 216)},
    "codes of eight bits": {
        "lora_down.weight": torch.ones(2, 48, 3, 3).to(torch.int8), "lora_up.weight": torch.ones(32, 2, 1, 1).to(torch.int8),
    },
    "a change in whole numbers": {"diff": torch.ones(32, 48, 3, 3, dtype=torch.int32)},
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGED)
def test_damaged_factors_are_refused_by_name_and_never_stretched(how, tmp_path):
    save_file({f"{PLACE}.{name}": x for name, x in DAMAGED[how].items()}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=rf"{PLACE}.*(get the file again|as it was before that)$"):
        read_edit(tmp_path / "x.safetensors", tiny_sd())


def test_whole_numbers_are_no_weights(tmp_path):
    subject = tiny_sd()
    held = {name: x.to(torch.int8) for name, x in subject.components["unet"].state_dict().items()}
    save_file(held, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"holds int8, and a weight is of floating-point numbers"):
        read_edit(tmp_path / "x.safetensors", subject)
