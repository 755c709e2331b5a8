"""Adapters of others read as edits: what the loaders of the field make of the same file."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from concept_probe.erasers.interop import read_edit
from concept_probe.storage import MissingFile, WrongFile
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.testing.models.language import tiny_gpt2, tiny_llama
from tests.interop.files import assert_same, edited, fused, lora_file, merged, weights

peft = pytest.importorskip("peft")

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
RESNET = "up_blocks.0.resnets.1.conv1"
LAYER = "encoder.layers.1"
KOHYA = (".lora_down.weight", ".lora_up.weight")
FILES = {
    "kohya": (
        tiny_sd,
        {
            f"unet/{ATTENTION}.to_k": "lora_unet_" + f"{ATTENTION}.to_k".replace(".", "_"),
            f"unet/{ATTENTION}.to_out.0": "lora_unet_" + f"{ATTENTION}.to_out.0".replace(".", "_"),
            f"unet/{RESNET}": "lora_unet_" + RESNET.replace(".", "_"),
            f"text_encoder/{LAYER}.mlp.fc1": "lora_te_text_model_encoder_layers_1_mlp_fc1",
            f"text_encoder/{LAYER}.self_attn.out_proj": "lora_te_text_model_encoder_layers_1_self_attn_out_proj",
        },
        KOHYA,
    ),
    "kohya, SDXL": (
        tiny_sdxl,
        {
            f"unet/{ATTENTION}.to_v": "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_v",
            "unet/mid_block.attentions.0.proj_in": "lora_unet_middle_block_1_proj_in",
            f"unet/{RESNET}": "lora_unet_output_blocks_1_0_in_layers_2",
            "unet/up_blocks.1.resnets.0.conv_shortcut": "lora_unet_output_blocks_2_0_skip_connection",
            "unet/add_embedding.linear_1": "lora_unet_label_emb_0_0",
            f"text_encoder/{LAYER}.self_attn.out_proj": "lora_te1_text_model_encoder_layers_1_self_attn_out_proj",
            f"text_encoder_2/text_model.{LAYER}.self_attn.out_proj": "lora_te2_text_model_encoder_layers_1_self_attn_out_proj",
            f"text_encoder_2/text_model.{LAYER}.mlp.fc2": "lora_te2_text_model_encoder_layers_1_mlp_fc2",
        },
        KOHYA,
    ),
    "diffusers": (
        tiny_sd,
        {
            f"unet/{ATTENTION}.to_q": f"unet.{ATTENTION}.to_q",
            f"text_encoder/{LAYER}.mlp.fc2": f"text_encoder.text_model.{LAYER}.mlp.fc2",
            f"text_encoder/{LAYER}.self_attn.out_proj": f"text_encoder.text_model.{LAYER}.self_attn.out_proj",
        },
        (".lora_A.weight", ".lora_B.weight"),
    ),
    "diffusers, of processors": (
        tiny_sd,
        {
            f"unet/{ATTENTION}.to_q": f"unet.{ATTENTION}.processor.to_q",
            f"unet/{ATTENTION}.to_out.0": f"unet.{ATTENTION}.processor.to_out",
            f"text_encoder/{LAYER}.self_attn.v_proj": f"text_encoder.text_model.{LAYER}.self_attn.to_v",
            f"text_encoder/{LAYER}.self_attn.out_proj": f"text_encoder.text_model.{LAYER}.self_attn.to_out",
        },
        ("_lora.down.weight", "_lora.up.weight"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_read_as_diffusers_reads_it(kind, tmp_path):
    make, stems, ends = FILES[kind]
    subject = make()
    alphas = {f"{stem}.alpha": torch.tensor(3.0) for stem in stems.values()} if ends == KOHYA else {}
    path = lora_file(tmp_path / "anything.safetensors", subject, stems, ends, **alphas)
    edit = read_edit(path, subject, concept="cat")
    assert (edit.concept, edit.made_by["kind"], len(edit.deltas)) == ("cat", "adapter", len(stems))
    assert_same(edited(subject, edit), fused(make(), path), weights(subject))


@pytest.mark.slow
def test_magnitudes_of_dora_are_read_as_diffusers_reads_them(tmp_path):
    subject = tiny_sd()
    stem = "lora_unet_" + f"{ATTENTION}.to_k".replace(".", "_")
    lengths = torch.linspace(0.5, 2, 32)[:, None]
    stems = {f"unet/{ATTENTION}.to_k": stem}
    path = lora_file(tmp_path / "dora.safetensors", subject, stems, KOHYA, **{f"{stem}.dora_scale": lengths})
    found = edited(subject, read_edit(path, subject))
    torch.testing.assert_close(found[f"unet/{ATTENTION}.to_k.weight"].norm(dim=1), lengths[:, 0])
    by_input = load_file(path) | {f"{stem}.dora_scale": torch.linspace(0.5, 2, 16)[None]}
    save_file(by_input, tmp_path / "columns.safetensors")
    found = edited(subject, read_edit(tmp_path / "columns.safetensors", subject))
    torch.testing.assert_close(found[f"unet/{ATTENTION}.to_k.weight"].norm(dim=0), torch.linspace(0.5, 2, 16))


OF_PEFT = {
    "LoRA with patterns": lambda m: peft.LoraConfig(
        r=2, lora_alpha=3, target_modules=m, rank_pattern={"layers.1.*": 4, "h.1.*": 4}, alpha_pattern={m[0]: 7}
    ),
    "rsLoRA, biases": lambda m: peft.LoraConfig(r=3, lora_alpha=5, target_modules=m, use_rslora=True, bias="all"),
    "DoRA": lambda m: peft.LoraConfig(r=2, target_modules=m, use_dora=True),
    "LoHa": lambda m: peft.LoHaConfig(r=2, alpha=3, target_modules=m),
    "LoKr": lambda m: peft.LoKrConfig(r=2, alpha=3, target_modules=m, decompose_both=True),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "modules", "kind"),
    [(tiny_llama, ["q_proj", "down_proj"], kind) for kind in OF_PEFT]
    + [(tiny_gpt2, ["c_proj", "wte"], kind) for kind in ("LoRA with patterns", "rsLoRA, biases")]
    + [(tiny_gpt2, ["c_attn"], "DoRA")],
)
def test_a_folder_of_peft_is_read_as_peft_reads_it(make, modules, kind, tmp_path):
    subject = make()
    config = OF_PEFT[kind](modules)
    model = peft.get_peft_model(make().components["model"], config)
    g = torch.Generator().manual_seed(1)
    for name, x in model.named_parameters():
        if any(part in name for part in ("lora_", "hada_", "lokr_")) or (x.requires_grad and name.endswith("bias")):
            x.data += torch.randn(x.shape, generator=g) / 4
    model.save_pretrained(tmp_path)
    edit = read_edit(tmp_path, subject)
    tied = kind != "DoRA" and "wte" in modules
    wanted = merged(make().components["model"], tmp_path)
    if tied:  # an edit of what is tied is refused where it is switched on
        with pytest.raises(ValueError, match="is tied to"):
            edited(subject, edit)
        with torch.no_grad():
            subject.components["model"].lm_head.weight = torch.nn.Parameter(
                subject.components["model"].lm_head.weight.clone()
            )
        edit = read_edit(tmp_path, subject)
    found = {name.removeprefix("model/"): x for name, x in edited(subject, edit).items() if "lm_head" not in name}
    wanted = {name: x for name, x in wanted.items() if "lm_head" not in name}
    base = {name.removeprefix("model/"): x for name, x in weights(subject).items() if "lm_head" not in name}
    assert_same(found, wanted, base)


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


@pytest.mark.slow
def test_products_of_lycoris_and_whole_changes(tmp_path):
    """Against the formulas, written out one number at a time."""
    subject, g = tiny_sd(), torch.Generator().manual_seed(0)
    conv, linear = f"unet/{RESNET}.weight", f"unet/{ATTENTION}.to_out.0.weight"
    base = weights(subject)
    (o, i, h, w), (d, e) = base[conv].shape, base[linear].shape
    stem, flat = "lora_unet_" + RESNET.replace(".", "_"), "lora_unet_" + f"{ATTENTION}.to_out.0".replace(".", "_")

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g) / 3

    mid = {
        "lora_mid.weight": random(2, 3, h, w),
        "lora_down.weight": random(3, i, 1, 1),
        "lora_up.weight": random(o, 2, 1, 1),
    }
    core = {f"hada_t{n}": random(2, 2, h, w) for n in (1, 2)}
    loha = {f"hada_w{n}_a": random(2, o) for n in (1, 2)} | {f"hada_w{n}_b": random(2, i) for n in (1, 2)} | core
    lokr = {"lokr_w1": random(2, 4), "lokr_w2_a": random(d // 2, 3), "lokr_w2_b": random(3, e // 4)}
    whole = {"diff": random(d, e), "diff_b": random(d)}

    def cored(n: int) -> torch.Tensor:
        a, b, t = loha[f"hada_w{n}_a"], loha[f"hada_w{n}_b"], loha[f"hada_t{n}"]
        return torch.einsum("xyhw,xo,yi->oihw", t, a, b)

    kron = torch.einsum("ab,cd->acbd", lokr["lokr_w1"], lokr["lokr_w2_a"] @ lokr["lokr_w2_b"]).reshape(d, e)
    up, core, down = mid["lora_up.weight"][..., 0, 0], mid["lora_mid.weight"], mid["lora_down.weight"][..., 0, 0]
    wanted = {
        "mid": (stem, mid, conv, torch.einsum("ox,xyhw,yi->oihw", up, core, down) * 5 / 3),
        "loha": (stem, loha, conv, cored(1) * cored(2) * 5 / 2),
        "lokr": (flat, lokr, linear, kron * 5 / 3),
        "diff": (flat, whole, linear, whole["diff"]),
    }  # fmt: skip
    for name, (where, tensors, weight, change) in wanted.items():
        alpha = {} if name == "diff" else {f"{where}.alpha": torch.tensor(5.0)}
        path = tmp_path / f"{name}.safetensors"
        save_file({f"{where}.{part}": x for part, x in tensors.items()} | alpha, path)
        found = edited(subject, read_edit(path, subject))[weight]
        torch.testing.assert_close(
            found, base[weight] + change, atol=1e-5, rtol=1e-4, msg=lambda s, n=name: f"{n}: {s}"
        )
    bias = tmp_path / "bias.safetensors"
    save_file({f"lora_unet_{RESNET.replace('.', '_')}.diff_b": torch.ones(o)}, bias)
    found = edited(subject, read_edit(bias, subject))
    torch.testing.assert_close(found[f"unet/{RESNET}.bias"], base[f"unet/{RESNET}.bias"] + 1)


STEM = "lora_unet_" + f"{ATTENTION}.to_k".replace(".", "_")
DOWN, UP = torch.ones(2, 16), torch.ones(32, 2)
PAIR = {f"{STEM}.lora_down.weight": DOWN, f"{STEM}.lora_up.weight": UP}
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
