"""What stands around a model, or was put onto it: looked through, done as the pipeline does, or refused with the mend."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from torch import nn

import concept_probe as cp
from concept_probe.erasers.erasure.parameters import address, find_parameter
from concept_probe.families import LanguageModel, adopt
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models import TINY_MODELS
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Prompt, Query, Sampling

QUERIES, SAMPLING = [Query(Prompt("a cat", "cat"))], Sampling(steps=2, guidance=3.0)


def lora(*targets: str, **more: Any) -> LoraConfig:
    return LoraConfig(r=2, target_modules=list(targets), init_lora_weights=False, **more)


@pytest.mark.slow
def test_an_autoencoder_that_overflows_in_float16_runs_in_float32_at_both_ends():
    pipeline = tiny_sdxl().pipeline.to(torch.float16)
    pipeline.vae.decoder.conv_in.weight.data *= 2e4
    pipeline.vae.encoder.conv_in.weight.data *= 2e4
    subject = adopt(pipeline, "half")
    before, latents = subject.stamp(), torch.full((1, 4, 8, 8), 64.0)
    with torch.no_grad():
        assert not pipeline.vae.decode(latents.half()).sample.isfinite().all()
        wide = copy.deepcopy(pipeline.vae).float()
        want = (wide.decode(latents.float() / wide.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(subject.decode(latents.half()), want, atol=2e-3)
    assert subject.generate(QUERIES, SAMPLING).isfinite().all()
    assert subject.latents(torch.ones(1, 3, 16, 16)).isfinite().all()
    assert subject.stamp() == before and pipeline.vae.dtype == torch.float16


@pytest.mark.slow
@pytest.mark.parametrize("fuse", [False, True])
def test_a_weight_under_an_adapter_is_neither_edited_nor_read(fuse):
    pipeline = tiny_sd().pipeline
    pipeline.unet.add_adapter(lora("to_k", "to_v", lora_dropout=0.5), adapter_name="style")
    if fuse:
        pipeline.fuse_lora()
    subject = adopt(pipeline, "styled")
    assert torch.equal(subject.generate(QUERIES, SAMPLING), subject.generate(QUERIES, SAMPLING))
    mend = r"under the adapter 'style'.*fuse_lora\(\) and then pipeline.unload_lora_weights\(\)"
    for method in ("uce", "esd"):
        with pytest.raises(ValueError, match=mend):
            cp.erase(method, subject, tiny_concept())
    with pytest.raises(ValueError, match=mend):
        subject.parameter(subject.sites("cross_key_weight")[0])
    inner = address(subject.sites("cross_key")[0]).replace(":weight", ".base_layer:weight")
    with pytest.raises(ValueError, match=mend):
        find_parameter(subject.components, inner)
    rows = cp.capture(subject, QUERIES, roles=["cross_value"], sampling=SAMPLING)
    assert all(rows.rows(site) for site in rows.sites)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    cp.erase("uce", adopt(pipeline, "mended"), tiny_concept())


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_peft_model_is_the_model_in_it(name):
    plain = LANGUAGE[name]()
    down = plain.sites("mlp_value")[0].path.rpartition(".")[2]
    wrapped = get_peft_model(copy.deepcopy(plain.model), lora(down, fan_in_fan_out=name == "gpt2"))
    subject = adopt(LanguageModel(wrapped, plain.tokenizer), "wrapped")
    assert all(subject.sites(role) == plain.sites(role) for role in plain.roles())
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(subject.model(ids).logits, wrapped(ids).logits)
    assert not torch.equal(subject.model(ids).logits, plain.model(ids).logits)
    rows = cp.capture(subject, QUERIES, roles=["resid", "mlp_hidden", "mlp_out"])
    assert all(rows.rows(site) for site in rows.sites)
    with pytest.raises(ValueError, match=r"merge_and_unload\(\)"):
        subject.parameter(subject.sites("mlp_value")[0])
    merged = adopt(LanguageModel(wrapped.merge_and_unload(), plain.tokenizer), "merged")
    assert torch.allclose(merged.next_logits([Prompt("a cat")]), subject.next_logits([Prompt("a cat")]), atol=1e-4)
    merged.parameter(merged.sites("mlp_value")[0])


def test_a_peft_model_with_tokens_of_its_own_is_refused():
    plain = LANGUAGE["llama"]()
    prefixed = get_peft_model(plain.model, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ValueError, match="puts tokens of its own before the prompt"):
        adopt(LanguageModel(prefixed, plain.tokenizer), "prefixed")


def test_data_parallelism_is_looked_through():
    plain = LANGUAGE["llama"]()
    subject = adopt(LanguageModel(nn.DataParallel(plain.model), plain.tokenizer), "parallel")
    assert subject.sites("resid") == plain.sites("resid") and subject.weight_hash() == plain.weight_hash()


@pytest.mark.slow
@pytest.mark.parametrize("norm", [torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_a_weight_that_is_made_from_others_is_not_edited(norm):
    subject = tiny_sd()
    norm(subject.module(subject.sites("cross_value")[0]))
    with pytest.raises(ValueError, match="is made anew in every pass from other parameters"):
        cp.erase("uce", subject, tiny_concept())
    with pytest.raises(ValueError, match="is made anew in every pass from other parameters"):
        subject.parameter(subject.sites("cross_value_weight")[0])


def test_a_module_at_two_places_is_not_captured():
    subject = tiny_sd()
    layers: Any = subject.components["text_encoder"].get_submodule("encoder.layers")
    layers[1] = layers[0]
    with pytest.raises(ValueError, match=r"layers.0:out' is the one at 'text_encoder/encoder.layers.1' too"):
        cp.capture(subject, QUERIES, roles=["text_stream"])


def ip_adapter(unet: Any) -> None:
    state: dict[str, Any] = {"ip_adapter": {}}
    state["image_proj"] = {
        "proj.weight": torch.zeros(64, 12), "proj.bias": torch.zeros(64),
        "norm.weight": torch.ones(16), "norm.bias": torch.zeros(16),
    }  # fmt: skip
    for i, _ in enumerate(name for name in unet.attn_processors if "attn2" in name):
        state["ip_adapter"] |= {f"{2 * i + 1}.to_{x}_ip.weight": torch.zeros(32, 16) for x in "kv"}
    unet._load_ip_adapter_weights([state])


def test_an_ip_adapter_is_refused_whenever_it_came():
    subject = tiny_sd()
    ip_adapter(subject.pipeline.unet)
    for work in (lambda: subject.generate(QUERIES, SAMPLING), lambda: adopt(subject.pipeline, "again")):
        with pytest.raises(ValueError, match=r"'ip_image_proj'.*unload_ip_adapter\(\)"):
            work()


def other_encoder(pipeline: Any) -> Any:
    pipeline.text_encoder = tiny_sdxl().pipeline.text_encoder_2
    return pipeline


def other_unet(pipeline: Any) -> Any:
    parts = dict(pipeline.components) | {"unet": tiny_sdxl().pipeline.unet}
    return StableDiffusionPipeline(**parts, requires_safety_checker=False)


def labels(pipeline: Any) -> Any:
    pipeline.unet.register_to_config(num_class_embeds=5)
    return pipeline


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [(other_encoder, "a text 16 wide.*give 24"), (other_unet, "a text 40 wide.*give 16"), (labels, "a class label")],
)
def test_parts_of_other_models_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        adopt(change(tiny_sd().pipeline), "mixed")


@pytest.mark.parametrize(
    "how",
    [
        lambda p: p.enable_sequential_cpu_offload(device="cpu"),
        lambda p: p.enable_model_cpu_offload(device="cpu"),
        lambda p: p.unet.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32),
    ],
)
def test_what_moves_weights_is_refused_also_after_adopting(how):
    subject = tiny_sd()
    how(subject.pipeline)
    with pytest.raises(ValueError, match=r"the hook .* is on at"):
        subject.generate(QUERIES, SAMPLING)


def test_what_the_pipeline_has_switched_on_goes_on_working():
    subject = tiny_sd()
    plain = subject.generate(QUERIES, SAMPLING)
    subject.pipeline.enable_attention_slicing(1)
    subject.pipeline.vae.enable_slicing()
    subject.pipeline.vae.enable_tiling()
    assert torch.allclose(adopt(subject.pipeline, "sliced").generate(QUERIES, SAMPLING), plain, atol=1e-5)
    rows = cp.capture(subject, QUERIES, roles=["cross_value"], sampling=SAMPLING)
    assert all(rows.rows(site) for site in rows.sites)


@pytest.mark.parametrize("component", ["unet", "text_encoder", "vae"])
def test_a_component_of_several_dtypes_is_refused(component):
    pipeline = tiny_sd().pipeline
    next(m for m in getattr(pipeline, component).modules() if isinstance(m, nn.Linear)).half()
    with pytest.raises(
        ValueError, match=rf"{component} holds matrices of several dtypes, \d+ in .*{component}.to\(torch.float32\)"
    ):
        adopt(pipeline, "mixed")


def test_adapters_in_full_are_no_mixture():
    held = LANGUAGE["llama"]().pipeline
    model = get_peft_model(held.model.half(), lora("q_proj", "v_proj"))
    assert {p.dtype for p in model.parameters()} == {torch.float16, torch.float32}
    assert adopt(LanguageModel(model, held.tokenizer), "half").dtype == torch.float16


@pytest.mark.parametrize("model", ["sd", "llama"])
def test_tokens_that_the_model_does_not_embed_are_named(model):
    subject = TINY_MODELS[model]()
    subject.pipeline.tokenizer.add_tokens([f"zed{i}" for i in range(300)])
    subject.encode([Prompt("a cat")])
    with pytest.raises(
        ValueError, match=r"gives token \d+ \('zed299'\), and the model embeds .* resize_token_embeddings"
    ):
        subject.encode([Prompt("zed299")])


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("unet", {"sample_size": None}, "sample_size None, so nobody knows how large"),
        ("unet", {"sample_size": [8, 0]}, r"sample_size \[8, 0\]"),
        ("vae", {"scaling_factor": None}, "scaling_factor None; it is a number above 0"),
        ("vae", {"scaling_factor": 0.0}, "scaling_factor 0.0; it is a number above 0"),
    ],
)
def test_sizes_that_a_configuration_lacks_are_named(part, change, said):
    pipeline = tiny_sd().pipeline
    getattr(pipeline, part).register_to_config(**change)
    with pytest.raises(ValueError, match=said):
        adopt(pipeline, "x")


def test_a_scheduler_that_fails_is_named():
    from diffusers import DDPMScheduler, PNDMScheduler

    subject = tiny_sd()
    own = subject.pipeline.scheduler.config
    for scheduler, steps, said in (
        (subject.pipeline.scheduler, 2000, "can't lay out 2000 denoising steps"),
        (PNDMScheduler.from_config(own, skip_prk_steps=False), 3, "PNDMScheduler can't lay out 3 denoising steps"),
        (DDPMScheduler.from_config(own, variance_type="learned_range"), 2, "DDPMScheduler fails in step 0 of 2"),
    ):
        subject.pipeline.scheduler = scheduler
        with pytest.raises(ValueError, match=said):
            subject.generate(QUERIES, Sampling(steps=steps))
