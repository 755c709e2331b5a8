"""Layers that are left out at the end of a text encoder, and adapters' strengths, are part of what a subject is."""

from __future__ import annotations

import pytest
import torch

from concept_probe.activations import capture, tap
from concept_probe.families import UNetSubject, adopt
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.testing.models.pipelines import PIPELINES
from concept_probe.types import Prompt, Query, Sampling, Site

PROMPTS = [Prompt("a cat", "cat"), Prompt("")]


@pytest.fixture(params=["SD", "SDXL"])
def both(request) -> tuple[UNetSubject, UNetSubject]:
    """The same pipeline, read as usual and with a layer left out."""
    pipeline = PIPELINES[f"{request.param}, clip skip"].make()
    return adopt(pipeline, "usual"), adopt(pipeline, "skipped", clip_skip=1)


def test_what_text_out_says_is_what_the_denoiser_reads(both):
    seen: dict[Site, torch.Tensor] = {}
    for subject in both:
        sites = subject.sites("text_out")
        with tap(subject, {s: lambda x, moment, s=s: seen.update({s: x}) for s in sites}):
            states = subject.encode(PROMPTS).states
        torch.testing.assert_close(torch.cat([seen[s] for s in sites], dim=-1), states)
        with tap(subject, {s: lambda x, moment: torch.zeros_like(x) for s in sites}):
            assert not subject.encode(PROMPTS).states.any()
    usual, skipped = (subject.encode(PROMPTS).states for subject in both)
    assert not torch.allclose(usual[0], skipped[0], atol=1e-3)


def test_a_replaced_layer_reaches_what_is_read_only_where_it_is_not_left_out():
    pipeline = PIPELINES["SD, clip skip"].make()
    usual, skipped = adopt(pipeline, "usual"), adopt(pipeline, "skipped", clip_skip=1)
    first, last = usual.sites("text_stream")
    for subject, site, reaches in ((usual, last, True), (skipped, last, False), (skipped, first, True)):
        before = subject.encode(PROMPTS).states
        with tap(subject, {site: lambda x, moment: x + torch.arange(x.shape[-1])}):
            after = subject.encode(PROMPTS).states
        assert torch.equal(after[0], before[0]) != reaches, (subject.name, site)
        assert not torch.equal(after[1], before[1])  # the empty prompt is read whole
    pristine = skipped.components["text_encoder"]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pristine.modules())


def test_it_is_told_by_hash_and_by_stores(both, tmp_path):
    usual, skipped = both
    assert usual.weight_hash() != skipped.weight_hash() == adopt(skipped.pipeline, "x", clip_skip=1).weight_hash()
    assert usual.conventions() == {} and skipped.conventions() == {"clip_skip": 1}
    capture(usual, PROMPTS, roles=["text_out"], folder=tmp_path)
    with pytest.raises(ValueError, match=r"subject|weight_hash|clip_skip"):
        capture(skipped, PROMPTS, roles=["text_out"], folder=tmp_path)


def test_what_can_not_be_left_out_is_refused():
    with pytest.raises(ValueError, match=r"9 layers at the end of text_encoder were to be left out and it has 2"):
        adopt(tiny_sd().pipeline, "x", clip_skip=9)
    with pytest.raises(ValueError, match=r"clip_skip is -1; it is how many"):
        adopt(tiny_sd().pipeline, "x", clip_skip=-1)
    with pytest.raises(ValueError, match=r"clip_skip 1 was asked of family '.*', which has no such layers"):
        adopt(LANGUAGE["llama"]().pipeline, "x", clip_skip=1)
    pipeline = tiny_sdxl().pipeline
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    with pytest.raises(ValueError, match=r"reads the empty prompt of guidance .*leave clip_skip 0"):
        adopt(pipeline, "x", clip_skip=1)


@pytest.mark.slow
def test_how_strong_adapters_act_is_part_of_the_hash_and_of_the_stamp():
    subject = adopt(PIPELINES["SD with LoRA"].make(), "adapted")
    sampling, query = Sampling(steps=1), [Query(PROMPTS[0])]
    said, hashes, drawn = [], [], []
    for strength in (1.0, 0.5, 1.0):
        subject.pipeline.unet.set_adapters("style", strength)
        drawn.append(subject.sample(query, sampling))
        said.append(subject.stamp())
        hashes.append(subject.weight_hash())
    assert not torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])
    assert hashes[0] == hashes[2] != hashes[1] and said[0] == said[2] != said[1]
    subject.pipeline.unet.disable_adapters()
    assert subject.weight_hash() not in hashes
