"""Whole weights of others read as edits: state dicts, components' folders, pipelines, language models."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from concept_probe.erasers import Edit, Shift
from concept_probe.erasers.interop import read_edit
from concept_probe.erasers.interop.naming import in_checkpoints
from concept_probe.families import adopt
from concept_probe.storage import WrongFile
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.testing.models.language import tiny_gpt2, tiny_llama
from concept_probe.testing.models.pipelines import PIPELINES
from concept_probe.testing.models.transformers import TRANSFORMERS
from tests.interop.files import assert_same, edited, weights

PLACES = {
    "unet": "unet/down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k:weight",
    "vae": "vae/decoder.mid_block.attentions.0.to_q:bias",
    "text_encoder": "text_encoder/encoder.layers.0.layer_norm1:weight",
}


def changed(subject, places) -> Edit:
    """An edit of some parameters, each by numbers of its own."""
    g = torch.Generator().manual_seed(0)
    deltas = {}
    for where in places:
        component, _, name = where.partition("/")
        shape = subject.components[component].get_parameter(name.replace(":", ".")).shape
        deltas[where] = Shift(torch.randn(shape, generator=g) / 5)
    return Edit("hand", "cat", deltas, subject.weight_hash())


def state(subject, component: str, edit: Edit) -> dict[str, torch.Tensor]:
    with edit.on(subject):
        return {name: x.clone().contiguous() for name, x in subject.components[component].state_dict().items()}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_a_state_dict_of_one_component_pickled_or_not(component, wrapped, tmp_path):
    subject = tiny_sd()
    edit = changed(subject, [PLACES[component]])
    held = state(subject, component, edit)
    if component == "text_encoder":  # as files have it
        held = {f"text_model.{name}": x for name, x in held.items()}
    if wrapped:
        torch.save({"state_dict": held, "global_step": 7, "name": "x"}, tmp_path / "esd.pt")
    else:
        save_file(held, tmp_path / "esd.safetensors")
    found = read_edit(next(tmp_path.iterdir()), subject)
    assert [*found.deltas] == [PLACES[component]] and found.made_by["tensors"] == len(held)
    assert_same(edited(subject, found), edited(subject, edit), weights(subject))
    some = {name: held[name] for name in list(held)[:6]} | {name: x for name, x in held.items() if "attn2.to_k" in name}
    save_file(some, tmp_path / "some.safetensors")
    if component == "unet":  # closed-form erasers publish the matrices that they changed and no others
        assert read_edit(tmp_path / "some.safetensors", subject).deltas.keys() == edit.deltas.keys()


@pytest.mark.slow
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_pipeline_s_folder_and_a_component_s(variant, tmp_path):
    subject, other = tiny_sd(), tiny_sd()
    edit = changed(subject, PLACES.values())
    with edit.on(other):
        if variant:
            for module in other.components.values():
                module.half()
        other.pipeline.save_pretrained(tmp_path, variant=variant)
    wanted, base = edited(subject, edit), weights(subject)
    for place in (tmp_path, tmp_path / "unet"):
        found = read_edit(place, subject)
        places = set(PLACES.values()) if place == tmp_path else {PLACES["unet"]}
        assert {*found.deltas} == places, "what float16 can't tell apart is no change"
        for name, x in edited(subject, found).items():
            mine = wanted[name] if any(name in where.replace(":", ".") for where in places) else base[name]
            torch.testing.assert_close(x, mine, atol=2e-3 if variant else 1e-6, rtol=0)


def test_a_checkpoint_s_text_encoder_of_openclip_and_what_stands_beside_weights(tmp_path):
    """Queries, keys and values are one tensor there, and a last layer that the pipeline leaves out stands in the file."""
    subject = adopt(PIPELINES["SD 2"].make(), "tiny-sd-2")
    edit = changed(subject, [f"text_encoder/encoder.layers.1.self_attn.{one}_proj:weight" for one in "kv"])
    held = edited(subject, edit)
    start = "cond_stage_model.model."
    file = {
        name: torch.cat([held[piece.where.replace(":", ".")] for piece in pieces])
        for name, pieces in in_checkpoints(subject)
        if name.startswith(start) and not pieces[0].turned
    }
    assert file[f"{start}transformer.resblocks.1.attn.in_proj_weight"].shape == (48, 16)
    layer = {f"{start}transformer.resblocks.3.{part}": torch.ones(16) for part in ("ln_1.weight", "mlp.c_fc.bias")}
    beside = {**layer, f"{start}text_projection": torch.ones(16, 16), f"{start}logit_scale": torch.ones(()),
              "alphas_cumprod": torch.ones(9), "model_ema.decay": torch.ones(())}  # fmt: skip
    save_file(file | beside, tmp_path / "sd2.safetensors")
    with pytest.warns(UserWarning, match="averages of its weights too"):
        found = read_edit(tmp_path / "sd2.safetensors", subject)
    assert found.deltas.keys() == edit.deltas.keys() and found.made_by["beside"] == len(beside)
    assert_same(edited(subject, found), held, weights(subject))
    save_file(file | {f"{start}transformer.resblocks.9.ln_1.weight": torch.ones(16)}, tmp_path / "deeper.safetensors")
    with pytest.raises(ValueError, match=r"1 of its .*resblocks.9.ln_1.weight"):
        read_edit(tmp_path / "deeper.safetensors", subject)


def test_a_folder_without_one_of_its_weights_is_refused(tmp_path):
    subject, other = tiny_llama(), tiny_llama()
    changed(subject, ["model/model.norm:weight"]).bake(other)
    other.pipeline.save_pretrained(tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    del held["model.layers.0.mlp.up_proj.weight"]
    save_file(held, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WrongFile, match=r"hold no 'model/model.layers.0.mlp.up_proj:weight', nor 0 other weights"):
        read_edit(tmp_path, subject)


@pytest.mark.slow
def test_a_parameter_that_stands_in_a_component_itself(tmp_path):
    """It has no address, so an edit can't change it: as it is it may stand in a file."""
    subject = TRANSFORMERS["pixart-sigma"]()
    where = "transformer/proj_out:bias"
    held = state(subject, "transformer", changed(subject, [where]))
    save_file(held, tmp_path / "a.safetensors")
    assert [*read_edit(tmp_path / "a.safetensors", subject).deltas] == [where]
    save_file(held | {"scale_shift_table": held["scale_shift_table"] + 1}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"1 of its .* 'scale_shift_table'"):
        read_edit(tmp_path / "b.safetensors", subject)


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_language_model_s_folder(make, tmp_path):
    subject, other = make(), make()
    path = subject.sites("mlp_value")[1].path
    edit = changed(subject, [f"model/{path}:weight"])
    edit.bake(other)
    other.pipeline.save_pretrained(tmp_path)
    found = read_edit(tmp_path, subject)
    assert found.deltas.keys() == edit.deltas.keys() and 0 < found.made_by["share"] < 0.5
    assert_same(edited(subject, found), edited(subject, edit), weights(subject))


@pytest.mark.slow
def test_which_of_several_encoders_is_told_by_shape_or_asked(tmp_path):
    subject = tiny_sdxl()
    held = {"text_model.encoder.layers.0.layer_norm1.bias": torch.ones(16)}
    save_file(held, tmp_path / "a.safetensors")
    assert [*read_edit(tmp_path / "a.safetensors", subject).deltas] == [
        "text_encoder/encoder.layers.0.layer_norm1:bias"
    ]
    save_file({"encoder.conv_norm_out.weight": torch.ones(16) * 2}, tmp_path / "b.safetensors")
    assert [*read_edit(tmp_path / "b.safetensors", subject).deltas] == ["vae/encoder.conv_norm_out:weight"]
    alike = tiny_sd()
    alike.components["text_encoder_2"] = tiny_sd(1).components["text_encoder"]
    with pytest.raises(ValueError, match=r"fits several components .*\(text_encoder, text_encoder_2\); .*component="):
        read_edit(tmp_path / "a.safetensors", alike)
    assert "text_encoder_2/" in next(
        iter(read_edit(tmp_path / "a.safetensors", alike, component="text_encoder_2").deltas)
    )


@pytest.mark.slow
def test_what_is_no_edit_of_the_model_is_said(tmp_path):
    subject = tiny_sd()
    nothing = changed(subject, [])
    save_file(state(subject, "unet", nothing), tmp_path / "same.safetensors")
    with pytest.raises(ValueError, match=r"same.safetensors changes nothing of 'tiny-sd-0'"):
        read_edit(tmp_path / "same.safetensors", subject)
    save_file(state(tiny_sd(1), "unet", nothing), tmp_path / "other.safetensors")
    with pytest.warns(UserWarning, match=r"differs from 'tiny-sd-0' by 1\d\d% .* rather another model"):
        read_edit(tmp_path / "other.safetensors", subject)
    torch.save({"state_dict": subject.components["unet"]}, tmp_path / "code.pt")
    with pytest.raises(WrongFile, match=r"more than tensors.*asks for diffusers.*could run code"):
        read_edit(tmp_path / "code.pt", subject)
    (tmp_path / "two").mkdir()
    with pytest.raises(WrongFile, match="with 0 files of weights"):
        read_edit(tmp_path / "two", subject)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_edit(tmp_path / "nowhere", subject)


@pytest.mark.slow
def test_settings_that_an_edit_can_t_hold_are_said(tmp_path):
    subject, other = tiny_sd(), tiny_sd()
    changed(subject, [PLACES["unet"]]).bake(other)
    other.pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    other.pipeline.text_encoder.config.hidden_act = "gelu"
    other.pipeline.save_pretrained(tmp_path)
    with pytest.warns(UserWarning) as said:
        read_edit(tmp_path, subject)
    texts = [str(w.message) for w in said]
    assert any("scheduler (prediction_type 'v_prediction' for 'epsilon')" in t for t in texts)
    assert any("text_encoder (hidden_act 'gelu' for 'relu')" in t and "load it, and give the base" in t for t in texts)


def test_two_adapters_in_one_folder_have_to_be_the_same(tmp_path):
    pytest.importorskip("peft")
    subject = tiny_sd()
    edit = changed(subject, [PLACES["unet"]])
    edit.export_lora(tmp_path)
    assert read_edit(tmp_path, subject).deltas.keys() == edit.deltas.keys()
    edit.scaled(2).export_lora(tmp_path / "twice")
    (tmp_path / "twice" / "pytorch_lora_weights.safetensors").replace(tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(WrongFile, match="in another way than the folders beside it"):
        read_edit(tmp_path, subject)
