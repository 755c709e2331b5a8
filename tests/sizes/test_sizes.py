"""Subjects that were made smaller, moved or compiled: the same answers to rounding, or one sentence that says the way out."""

from __future__ import annotations

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook

import concept_probe as cp
from concept_probe.families import adopt
from concept_probe.families.language.reading import LanguageModel
from concept_probe.testing.concepts import tiny_concept, tiny_facts
from concept_probe.testing.models import TINY_MODELS, answered
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import tiny_llama
from concept_probe.types import Prompt, Query, Sampling

QUERIES = [Query(Prompt("a cat"), 0), Query(Prompt("a dog"), 1)]
PARTS = ("text_encoder", "unet", "vae")


def rows(subject, role):
    acts = cp.capture(subject, [Prompt("a cat"), Prompt("a dog")], roles=[role], sampling=Sampling(steps=2))
    site = acts.sites[0]
    return next(iter(acts.batches(site, acts.rows(site)))).float()


@pytest.mark.parametrize(("dtype", "near"), [(torch.float16, 0.01), (torch.bfloat16, 0.06)])
def test_half_precision_answers_captures_guards_and_edits_to_rounding(dtype, near):
    plain, half = tiny_sd(), adopt(tiny_sd().pipeline.to(dtype), "half")
    for role in ("text_stream", "cross_key"):
        one, other = rows(plain, role), rows(half, role)
        assert (one - other).abs().max() < 3 * near * one.abs().max(), role
    for method in ("uce", "blocklist"):
        seen = []
        for subject in (plain, half):
            erasure = cp.erase(method, subject, tiny_concept())
            before = answered(subject, QUERIES)
            with erasure.on(subject):
                seen.append(answered(subject, QUERIES).float())
            assert torch.equal(answered(subject, QUERIES), before), "every byte as before"
        assert (seen[0] - seen[1]).abs().max() < near, method


@pytest.mark.parametrize("name", ["sd", "llama"])
def test_what_was_compiled_runs_as_written_while_it_is_looked_at(name):
    role = "cross_key" if name == "sd" else "resid"
    plain, compiled = TINY_MODELS[name](), TINY_MODELS[name]()
    root = compiled.components["unet" if name == "sd" else "model"]
    root.compile(backend="eager")
    torch.testing.assert_close(answered(compiled, QUERIES), answered(plain, QUERIES))
    torch.testing.assert_close(rows(compiled, role), rows(plain, role))
    about = tiny_concept() if name == "sd" else tiny_facts()
    edits = [cp.erase("uce" if name == "sd" else "grad_ascent", s, about) for s in (plain, compiled)]
    assert edits[0].deltas.keys() == edits[1].deltas.keys()  # pyright: ignore[reportAttributeAccessIssue]
    outs = []
    for subject, edit in zip((plain, compiled), edits, strict=True):
        with edit.on(subject):
            outs.append(answered(subject, QUERIES))
    torch.testing.assert_close(*outs)


@pytest.mark.parametrize("how", ["sequential", "model"])
def test_offloading_is_refused_with_the_call_that_ends_it(how):
    pipeline, hook = tiny_sd().pipeline, None
    for part in PARTS:
        if how == "sequential":
            cpu_offload(getattr(pipeline, part), execution_device=torch.device("cpu"))
        else:
            _, hook = cpu_offload_with_hook(getattr(pipeline, part), torch.device("cpu"), prev_module_hook=hook)
    with pytest.raises(ValueError, match=r"of accelerate is on at .* pipeline\.remove_all_hooks\(\)"):
        adopt(pipeline, "moved")
    pipeline.remove_all_hooks()
    torch.testing.assert_close(answered(adopt(pipeline, "back"), QUERIES), answered(tiny_sd(), QUERIES))


@pytest.mark.parametrize("how", ["group", "layerwise"])
def test_hooks_of_diffusers_are_refused_by_name(how):
    pipeline = tiny_sd().pipeline
    if how == "group":
        pipeline.unet.enable_group_offload(torch.device("cpu"), torch.device("cpu"), offload_type="leaf_level")
    else:
        pipeline.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    with pytest.raises(ValueError, match=r"of diffusers is on at .* loaded anew on one device"):
        adopt(pipeline, "moved")


@pytest.mark.slow
def test_a_language_model_on_a_device_map_of_one_device_is_itself_and_on_disk_is_refused(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    subject = tiny_llama()
    subject.pipeline.save_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", device_map="cpu")
    torch.testing.assert_close(
        answered(adopt(LanguageModel(model, tokenizer), "mapped"), QUERIES), answered(subject, QUERIES)
    )
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "cpu",
              "model.rotary_emb": "cpu", "lm_head": "cpu"}  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=str(tmp_path / "off")
    )
    with pytest.raises(ValueError, match=r"moves weights .* give the model without it"):
        adopt(LanguageModel(model, tokenizer), "on disk")


class Linear4bit(torch.nn.Linear):
    """As bitsandbytes calls its own."""


Linear4bit.__module__ = "bitsandbytes.nn.modules"


def test_matrices_that_are_packed_are_named_with_the_way_out():
    pipeline = tiny_llama().pipeline
    pipeline.model.model.layers[0].mlp.down_proj.__class__ = Linear4bit
    with pytest.raises(
        ValueError, match=r"down_proj' is a Linear4bit, whose matrix is kept as codes by bitsandbytes; .*bfloat16"
    ):
        adopt(pipeline, "packed")
    pipeline = tiny_sd().pipeline
    pipeline.unet.conv_out.qweight = torch.zeros(3, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"'unet/conv_out' .* a packed format \(qweight\)"):
        adopt(pipeline, "packed")


@pytest.mark.slow
def test_weights_of_torchao_are_read_and_guarded_and_not_edited():
    quantisation = pytest.importorskip("torchao.quantization")
    pipeline, plain = tiny_sd().pipeline, tiny_sd()
    quantisation.quantize_(pipeline.unet, quantisation.Int8WeightOnlyConfig())
    subject = adopt(pipeline, "eight bits")
    assert subject.weight_hash() == subject.weight_hash() != plain.weight_hash()
    assert (answered(subject, QUERIES) - answered(plain, QUERIES)).abs().max() < 0.01
    one, other = rows(plain, "cross_key"), rows(subject, "cross_key")
    assert (one - other).abs().max() < 0.05 * one.abs().max()
    guard = cp.erase("blocklist", subject, tiny_concept())
    with guard.on(subject):
        assert not torch.equal(answered(subject, QUERIES), answered(plain, QUERIES))
    with pytest.raises(ValueError, match=r"is quantised .* put the edit in, and quantise that"):
        cp.erase("uce", subject, tiny_concept())
