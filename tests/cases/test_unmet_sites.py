"""What is on where no forward pass comes by is an error: sites that are not met, weights that are not read."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import concept_probe as cp
from concept_probe.erasers import Edit, Intervention
from concept_probe.erasers.erasure.deltas import Shift
from concept_probe.families import UNetSubject, adopt
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Prompt, Query, Sampling, Site

QUERIES, SAMPLING = [Query(Prompt("a cat", "cat"))], Sampling(steps=2, guidance=3.0)


def shifted(subject: cp.Subject, site: Site) -> Edit:
    """An edit of one weight."""
    delta = Shift(torch.ones_like(subject.parameter(site)))
    return Edit("shift", "cat", {f"{site.component}/{site.path}:weight": delta}, subject.weight_hash())


class ReadsWeights:
    """Attention that multiplies with the weights itself."""

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, **_: Any) -> Any:
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        key, value = F.linear(text, attn.to_k.weight), F.linear(text, attn.to_v.weight)
        split = (attn.head_to_batch_dim(x) for x in (attn.to_q(hidden_states), key, value))
        out = F.scaled_dot_product_attention(*split, scale=attn.scale)
        return attn.to_out[0](attn.batch_to_head_dim(out))


@pytest.fixture
def fused() -> UNetSubject:
    pipeline = tiny_sd().pipeline
    pipeline.fuse_qkv_projections()
    return adopt(pipeline, "fused")


@pytest.mark.slow
def test_fused_projections_are_named_wherever_they_are_passed_over(fused: UNetSubject):
    mend = r"attn2.to_v.*are fused.*unfuse_qkv_projections\(\)"
    with pytest.raises(ValueError, match=mend):
        cp.capture(fused, QUERIES, roles=["cross_value"], sampling=SAMPLING)
    (site, *_), (weight, *_) = fused.sites("cross_value"), fused.sites("cross_value_weight")
    guard = Intervention("guard", "cat", {site: lambda x, moment: -x})
    with pytest.raises(ValueError, match=mend), guard.on(fused):
        fused.generate(QUERIES, SAMPLING)
    own, edit = fused.weight_hash(), shifted(fused, weight)
    with pytest.raises(ValueError, match=r"never read the weight.*" + mend), edit.on(fused):
        fused.generate(QUERIES, SAMPLING)
    with pytest.raises(ValueError, match=mend):
        edit.bake(fused)
    assert fused.weight_hash() == own
    rows = cp.capture(fused, QUERIES, roles=["block_out"], sampling=SAMPLING)
    assert all(rows.rows(s) for s in rows.sites)
    with guard.on(fused):  # nothing of the denoiser runs, so nothing is known
        fused.encode([Prompt("a cat")])


def test_weights_that_a_processor_reads_itself_can_be_edited_and_not_tapped():
    subject = tiny_sd()
    plain = subject.generate(QUERIES, SAMPLING)
    subject.pipeline.unet.set_attn_processor(ReadsWeights())
    read = subject.generate(QUERIES, SAMPLING)
    assert torch.allclose(read, plain, atol=1e-5)
    with shifted(subject, subject.sites("cross_value_weight")[0]).on(subject):
        assert not torch.equal(subject.generate(QUERIES, SAMPLING), read)
    with pytest.raises(ValueError, match="computed by the processor ReadsWeights"):
        cp.capture(subject, QUERIES, roles=["cross_value"], sampling=SAMPLING)


def test_a_part_of_a_language_model_that_nobody_calls():
    subject = LANGUAGE["gpt2"]()
    (weight, *_), (out, *_) = subject.sites("mlp_value"), subject.sites("mlp_out")
    block: Any = subject.module(subject.sites("resid")[0])
    block.mlp.forward = lambda x: x * 0
    with pytest.raises(ValueError, match=r"forward pass of 'model/transformer.h.0.mlp' was replaced by .*lambda"):
        subject.generate(QUERIES)
    del block.mlp.forward
    edit = shifted(subject, weight)
    block.mlp.__class__ = type("Skips", (type(block.mlp),), {"forward": lambda self, x: x * 0})
    with pytest.raises(ValueError, match=r"never read the weight 'model/transformer.h.0.mlp.c_proj:weight'"):
        edit.bake(subject)
    cp.capture(subject, QUERIES, sites=[out])
    with pytest.raises(ValueError, match=r"never met site 'model/transformer.h.0.mlp.c_proj:in'"):
        cp.capture(subject, QUERIES, roles=["mlp_hidden"])


def test_a_site_without_a_row_is_refused():
    with pytest.raises(ValueError, match="gave no row of kinds subject in branch cond"):
        cp.capture(LANGUAGE["llama"](), [Prompt("the sun")], roles=["resid"], kinds=["subject"])


def compiled(subject: cp.Subject, part: str, how: str) -> cp.Subject:
    module: Any = subject.components[part]
    if how == "wrapped":
        module = torch.compile(module, backend="eager")
        if part == "model":
            return adopt(cp.families.LanguageModel(module, subject.pipeline.tokenizer), "wrapped")
        setattr(subject.pipeline, part, module)
    elif how == "method":
        name = "decode" if part == "vae" else "forward"
        setattr(module, name, torch.compile(getattr(module, name), backend="eager"))
    else:
        module.compile(backend="eager")
    return adopt(subject.pipeline, how)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["in place", "wrapped", "method"])
@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae", "model"])
def test_compiled_parts_run_as_they_are_written(part: str, how: str):
    make = LANGUAGE["llama"] if part == "model" else tiny_sd
    plain, subject = make(), compiled(make(), part, how)
    assert subject.weight_hash() == plain.weight_hash()
    assert all(subject.sites(role) == plain.sites(role) for role in plain.roles())
    roles = ["resid"] if part == "model" else ["text_stream", "cross_value"]
    want, got = (cp.capture(s, QUERIES, roles=roles, sampling=SAMPLING) for s in (plain, subject))
    assert want.sites == got.sites
    for site in want.sites:
        (a, b), rows = (next(iter(x.batches(site, want.rows(site)))) for x in (want, got)), want.rows(site)
        assert len(a) == rows and torch.equal(a, b)
    for s in (plain, subject):
        site = s.sites(roles[-1])[0]
        with cp.tap(s, {site: lambda x, moment: x * 0}):
            changed = s.generate(QUERIES, SAMPLING)
        before = s.generate(QUERIES, SAMPLING)
        assert changed != before if part == "model" else not torch.equal(cast(Any, changed), cast(Any, before))


@pytest.mark.slow
def test_a_compiled_part_inside_is_refused_by_name():
    pipeline = tiny_sd().pipeline
    pipeline.unet.mid_block = torch.compile(pipeline.unet.mid_block, backend="eager")
    with pytest.raises(ValueError, match=r"'unet/mid_block' was wrapped by torch.compile"):
        adopt(pipeline, "inside")


@pytest.mark.slow
def test_a_part_that_is_swapped_after_adopting_is_refused():
    subject = tiny_sd()
    own = subject.pipeline.unet
    subject.pipeline.unet = tiny_sd(1).pipeline.unet
    with pytest.raises(ValueError, match=r"pipeline's unet was replaced.*adopt the pipeline again"):
        subject.generate(QUERIES, SAMPLING)
    subject.pipeline.unet = torch.compile(own, backend="eager")
    subject.generate(QUERIES, SAMPLING)


def test_what_was_put_into_training_mode_answers_as_before():
    subject = tiny_sd()
    encoder: Any = subject.components["text_encoder"]
    encoder.final_layer_norm = nn.Sequential(encoder.final_layer_norm, nn.Dropout(0.5)).eval()
    plain = subject.encode([Prompt("a cat")]).states
    subject.components["text_encoder"].train()
    assert torch.equal(subject.encode([Prompt("a cat")]).states, plain)


@pytest.mark.parametrize("make", [tiny_sd, LANGUAGE["llama"]])
def test_gradient_checkpointing_changes_no_gradient_under_a_tap(make):
    def gradient(subject: cp.Subject) -> torch.Tensor:
        site = subject.sites(subject.roles()[1])[0]
        factor = torch.ones((), requires_grad=True)
        with torch.enable_grad(), cp.tap(subject, {site: lambda x, moment: x * factor}):
            if isinstance(subject, UNetSubject):
                noise = torch.Generator().manual_seed(0)
                loss = subject.denoising_loss(torch.ones(2, 4, 8, 8), [Prompt("a cat")] * 2, noise)
            else:
                loss = cast(Any, subject).next_logits([Prompt("a cat")]).square().mean()
        loss.backward()
        assert factor.grad is not None
        return factor.grad

    plain, saving = make(), make()
    for module in saving.components.values():
        if getattr(
            module, "supports_gradient_checkpointing", getattr(module, "_supports_gradient_checkpointing", False)
        ):
            enable = getattr(
                module, "gradient_checkpointing_enable", getattr(module, "enable_gradient_checkpointing", None)
            )
            assert enable is not None
            enable()
    assert torch.equal(gradient(saving), gradient(plain))
    assert any(vars(m).get("gradient_checkpointing") for root in saving.components.values() for m in root.modules())
