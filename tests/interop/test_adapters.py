"""Adapters of others read as edits: what the loaders of the field make of the same file."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from concept_probe.erasers.interop import read_edit
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.testing.models.language import tiny_gpt2, tiny_llama
from tests.interop.files import ATTENTION, RESNET, assert_same, edited, fused, lora_file, merged, weights

peft = pytest.importorskip("peft")


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
