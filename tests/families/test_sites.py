"""Roles lead to tensors that are what their names say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from concept_probe.activations import tap
from concept_probe.families.diffusion.sites import cross_attentions
from concept_probe.families.text import sites as layout
from concept_probe.registry import UnknownName
from concept_probe.testing.models.diffusion import DIFFUSION
from concept_probe.types import Prompt, Query, Sampling, Site

PROMPTS = [Prompt("a cat", "cat"), Prompt("the red dog", "dog")]
COUNTS = {
    "sd": {"token_embedding": 1, "text_stream": 2, "text_out": 1, "mlp_value": 2, "cross_key": 4, "block_out": 4},
    "sdxl": {"token_embedding": 2, "text_stream": 4, "text_out": 2, "text_pooled": 1, "cross_key": 8, "block_out": 4},
}


@pytest.fixture(params=DIFFUSION)
def name(request):
    return request.param


@pytest.fixture
def subject(name):
    return DIFFUSION[name]()


def met(subject, sites):
    seen = {}
    with tap(subject, {s: lambda x, moment, s=s: seen.update({s: x}) for s in sites}):
        subject.generate([Query(p) for p in PROMPTS], Sampling(steps=1, guidance=1.0))
    return seen


def test_every_role_has_the_sites_of_this_model(subject, name):
    assert COUNTS[name].items() <= {role: len(subject.sites(role)) for role in subject.roles()}.items()
    assert ("text_pooled" in subject.roles()) == (name == "sdxl")
    assert (
        len(subject.sites("text_mlp_hidden")) == len(subject.sites("text_mlp_out")) == len(subject.sites("mlp_value"))
    )
    for role in ("cross_value", "cross_key_weight", "cross_value_weight", "cross_out"):
        assert len(subject.sites(role)) == len(subject.sites("cross_key"))


def test_sites_stand_in_the_order_in_which_the_pass_meets_them(subject):
    order = []
    roles = [r for r in subject.roles() if subject.sites(r)[0].side != "weight"]
    for role in roles:
        sites = subject.sites(role)
        order.clear()
        with tap(subject, {s: lambda x, moment, s=s: order.append(s) for s in sites}):
            subject.generate([Query(PROMPTS[0])], Sampling(steps=1, guidance=1.0))
        assert tuple(order) == sites, role


def test_coefficients_times_value_vectors_are_the_mlp_s_output(subject):
    hidden, values, out = (subject.sites(r)[-1] for r in ("text_mlp_hidden", "mlp_value", "text_mlp_out"))
    seen = met(subject, [hidden, out])
    weight, bias = subject.parameter(values), subject.module(values).bias
    torch.testing.assert_close(seen[hidden] @ weight.mT + bias, seen[out])


def test_cross_attention_reads_text_out(subject):
    outs, key = subject.sites("text_out"), subject.sites("cross_key")[0]
    seen = met(subject, [*outs, key])
    states = torch.cat([seen[s] for s in outs], dim=-1)
    torch.testing.assert_close(states, subject.encode(PROMPTS).states)
    weight = subject.parameter(subject.sites("cross_key_weight")[0])
    torch.testing.assert_close(states @ weight.mT, seen[key])


def test_what_a_tap_puts_at_text_out_is_what_the_denoiser_gets(subject):
    """SDXL reads hidden states that its library collects with hooks; a replacement must not miss them."""
    sites = subject.sites("text_out")
    key = subject.sites("cross_key")[0]
    seen = []
    with (
        tap(subject, {s: lambda x, moment: torch.zeros_like(x) for s in sites}),
        tap(subject, {key: lambda x, moment: seen.append(x)}),
    ):
        states = subject.encode(PROMPTS).states
        subject.generate([Query(PROMPTS[0])], Sampling(steps=1))
    assert not states.any() and not seen[0].any()


def test_text_pooled_is_what_the_pipeline_pools():
    subject = DIFFUSION["sdxl"]()
    (site,) = subject.sites("text_pooled")
    pooled = subject.encode(PROMPTS).pooled
    assert pooled is not None
    torch.testing.assert_close(met(subject, [site])[site], pooled)


def test_axes(subject):
    assert {subject.axis(s) for r in ("cross_key", "cross_value", "text_stream") for s in subject.sites(r)} == {"token"}
    assert {subject.axis(s) for r in ("cross_out", "block_out") for s in subject.sites(r)} == {"patch"}


class Wrapped(nn.Module):
    """The module tree of older library versions, which keep the encoder one level deeper."""

    def __init__(self, encoder):
        super().__init__()
        self.deeper = encoder

    def get_input_embeddings(self):
        return self.deeper.get_input_embeddings()


def test_sites_are_found_by_build_and_not_by_path():
    encoder = DIFFUSION["sd"]().components["text_encoder"]
    assert layout.text_layers(Wrapped(encoder))[0] == "deeper.encoder.layers"
    assert layout.final_norm(Wrapped(encoder)) == "deeper.final_layer_norm"
    plain = layout.text_sites("c", encoder, reads="r", pools=False)
    deep = layout.text_sites("c", Wrapped(encoder), reads="deeper.r", pools=False)
    assert {r: tuple(Site("c", f"deeper.{s.path}", s.side) for s in sites) for r, sites in plain.items()} == deep
    with pytest.raises(ValueError, match="has no list of layers"):
        layout.text_layers(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="no cross-attention"):
        cross_attentions(nn.Linear(2, 2))


def test_wrong_names_list_the_right_ones(subject):
    with pytest.raises(UnknownName, match=r"role 'text_strem' not found; nearest: 'text_stream'"):
        subject.sites("text_strem")
    with pytest.raises(
        UnknownName, match=r"site 'text_encoder/encoder.layers.9:out' not found; nearest: .*layers\.[01]"
    ):
        subject.module(Site("text_encoder", "encoder.layers.9"))
    with pytest.raises(UnknownName, match=r"component 'unit' not found; nearest: 'unet'"):
        subject.module(Site("unit", "mid_block"))
    with pytest.raises(UnknownName, match="has no weight of its own"):
        subject.parameter(Site("text_encoder", "encoder.layers.0", "weight"))
    with pytest.raises(UnknownName, match=r"column .*\[999\]' not found \(the weight is \(16, 48\)\)"):
        subject.parameter(Site("text_encoder", "encoder.layers.0.mlp.fc2", "weight", 999))
    with pytest.raises(ValueError, match="a parameter has side 'weight'"):
        subject.parameter(Site("text_encoder", "encoder.layers.0.mlp.fc2"))
