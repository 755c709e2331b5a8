"""Parts of a language model are found by their build, and are what their roles say."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM

from concept_probe.activations import tap
from concept_probe.erasers import Edit, LowRank
from concept_probe.families import CausalLMSubject, LanguageModel
from concept_probe.families.language.layout import lm_layout
from concept_probe.registry import UnknownName
from concept_probe.testing.models.language import LANGUAGE, LM_HIDDEN, LM_LAYERS, LM_WIDTH, _sizes, lm_tokenizer
from concept_probe.types import Prompt, Query, Site

PROMPTS = [Prompt("see the cat", "cat"), Prompt("a dog and the sun in red", "dog")]
TIED = {"gpt2", "gemma", "qwen2"}


@pytest.fixture(params=LANGUAGE)
def name(request):
    return request.param


@pytest.fixture
def subject(name):
    return LANGUAGE[name]()


def met(subject, sites):
    seen = {}
    with tap(subject, {s: lambda x, moment, s=s: seen.update({s: x}) for s in sites}):
        subject.next_logits(PROMPTS)
    return seen


def test_every_role_has_its_sites_in_the_order_in_which_the_pass_meets_them(subject):
    assert {role: len(subject.sites(role)) for role in subject.roles()} == {
        "token_embedding": 1, "resid": 2, "attn_out": 2, "mlp_hidden": 2, "mlp_out": 2, "text_out": 1, "mlp_value": 2,
        "unembed": 1,
    }  # fmt: skip
    order = []
    for role in subject.roles():
        sites = subject.sites(role)
        if sites[0].side == "weight":
            continue
        order.clear()
        with tap(subject, {s: lambda x, moment, s=s: order.append(s) for s in sites}):
            subject.next_logits(PROMPTS[:1])
        assert tuple(order) == sites, role


def test_coefficients_times_columns_are_the_feed_forward_s_output(subject, name):
    for layer in range(LM_LAYERS):
        hidden, values, out = (subject.sites(r)[layer] for r in ("mlp_hidden", "mlp_value", "mlp_out"))
        seen = met(subject, [hidden, out])
        matrix = subject.matrix(values)
        assert matrix.shape == (LM_WIDTH, LM_HIDDEN)
        assert subject.orientation(values) == ("in_out" if name == "gpt2" else "out_in")
        assert matrix.untyped_storage().data_ptr() == subject.parameter(values).untyped_storage().data_ptr()
        bias = subject.module(values).bias
        torch.testing.assert_close(seen[hidden] @ matrix.mT + (0 if bias is None else bias), seen[out])


def test_columns_are_counted_along_the_inputs_however_they_are_stored(subject):
    site = subject.sites("mlp_value")[0]
    assert subject.parameter(Site(site.component, site.path, "weight", LM_HIDDEN - 1)) is subject.parameter(site)
    with pytest.raises(UnknownName, match=rf"column .*\[{LM_HIDDEN}\]' not found"):
        subject.parameter(Site(site.component, site.path, "weight", LM_HIDDEN))


def test_the_residual_stream_adds_up(subject, name):
    """Of the last block: what comes in, attention and feed-forward make what goes out."""
    before, after = subject.sites("resid")
    attention, mlp = subject.sites("attn_out")[1], subject.sites("mlp_out")[1]
    seen = met(subject, [before, after, attention, mlp])
    torch.testing.assert_close(seen[before] + seen[attention] + seen[mlp], seen[after], atol=1e-5, rtol=1e-5)


def test_the_unembedding_reads_text_out(subject):
    (out,) = subject.sites("text_out")
    states = met(subject, [out])[out]
    matrix = subject.matrix(subject.sites("unembed")[0])
    tokens = subject.tokenise(PROMPTS)
    last = tokens.masks[0].cumsum(-1).argmax(-1)
    torch.testing.assert_close(states[torch.arange(2), last] @ matrix.mT, subject.next_logits(PROMPTS))
    mask = tokens.masks[0][..., None]
    torch.testing.assert_close(subject.encode(PROMPTS).states, states * mask)


def test_tied_matrices_are_known_by_their_storage_and_an_edit_of_one_is_refused(subject, name):
    assert subject.tied == (name in TIED)
    site = subject.sites("unembed")[0]
    matrix = subject.matrix(site)
    delta = LowRank(torch.ones(matrix.shape[0], 1), torch.ones(matrix.shape[1], 1))
    edit = Edit("test", "cat", {f"model/{site.path}:weight": delta}, subject.weight_hash())
    before = subject.next_logits(PROMPTS)
    if name in TIED:
        embedding = subject.sites("token_embedding")[0].path
        with pytest.raises(ValueError, match=rf"'model/{site.path}:weight' is tied to 'model/{embedding}:weight'"):
            edit.on(subject).__enter__()
    else:
        with edit.on(subject):
            assert not torch.allclose(subject.next_logits(PROMPTS), before)
    assert torch.equal(subject.next_logits(PROMPTS), before)


def renamed(module: nn.Module, names: dict[str, str]) -> None:
    """Give children other names, all the way down; the forward pass no longer works, the build is the same."""
    module._modules = {names.get(key, key): child for key, child in module._modules.items()}
    for child in module.children():
        renamed(child, names)


def test_nothing_is_found_by_its_name(subject):
    plain = subject.layout
    names = {
        p: f"x{i}" for i, p in enumerate({q for path, _ in subject.model.named_modules() for q in path.split(".")})
    }
    names |= {q: q for q in names if q.isdigit() or not q}

    def told(path: str) -> str:
        return ".".join(names[q] for q in path.split("."))

    renamed(subject.model, names)
    subject.model.get_input_embeddings = lambda: subject.model.get_submodule(told(plain.embedding))
    subject.model.get_output_embeddings = lambda: subject.model.get_submodule(told(plain.unembed))
    found = lm_layout(subject.model)
    assert [vars(b) for b in found.blocks] == [{k: told(v) for k, v in vars(b).items()} for b in plain.blocks]
    assert found.norm == told(plain.norm) and told(plain.norm) != plain.norm


def test_models_of_another_build_are_refused():
    sizes = _sizes(num_key_value_heads=1, num_local_experts=2)
    with pytest.raises(ValueError, match=r"MixtralForCausalLM is not supported: block .* is a mixture of experts"):
        CausalLMSubject("m", LanguageModel(MixtralForCausalLM(MixtralConfig(**sizes)), lm_tokenizer()))


def test_a_pass_ends_after_the_last_site(subject):
    done: list[str] = []
    for path, module in subject.model.named_modules():
        module.register_forward_hook(lambda *_, path=path: done.append(path))
    first = subject.sites("mlp_out")[0]
    subject.run_to([first, subject.sites("attn_out")[0]], [Query(p) for p in PROMPTS])
    assert done[-1] == first.path and not any(p.startswith(subject.layout.blocks[1].block) for p in done)
    with pytest.raises(UnknownName, match=r"role 'residual' not found; nearest: 'resid'"):
        subject.sites("residual")
