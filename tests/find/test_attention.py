"""Attention maps: exactly what each layer computes, for every class of pipeline, and nothing changed by looking."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.activations.attention import attending
from concept_probe.find.attention.batch import MapOptions
from concept_probe.find.attention.collect import attention_maps
from concept_probe.find.attention.maps import MapChoice
from concept_probe.find.attention.sums import ATTENDED
from concept_probe.find.attention.words import words_of
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.transformers import tiny_flux, tiny_sd3
from tests.find.attention_cases import GUIDED, KINDS, PLAIN, QUERIES, heads_of, kept, subject_of


@pytest.mark.parametrize("sampling", [GUIDED, PLAIN], ids=["guided", "not guided"])
@pytest.mark.parametrize("name", ["sd", "sdxl", "pixart-alpha", "sana"])
def test_maps_across_are_the_attention_of_captured_queries_and_keys_to_the_bit(name, sampling):
    subject, seen = subject_of(name), {}
    sites = [*subject.sites("cross_query"), *subject.sites("cross_key")]

    def keeper(path: str) -> Any:
        return lambda x, moment: seen.setdefault(path, []).append((x, subject.condition.mask))

    with tap(subject, {site: keeper(site.path) for site in sites}):
        maps = attention_maps(subject, QUERIES, sampling=sampling, options=MapOptions(heads="each"))
    assert list(maps.layers.values()) == ["cross"] * len(subject.sites("cross_key"))
    for layer in maps.layers:
        module = subject.components[subject.denoiser].get_submodule(layer)
        for step in range(2):
            (q, mask), (k, _) = (seen[f"{layer}.{end}"][step] for end in ("to_q", "to_k"))
            compared = heads_of(q, module.heads) @ heads_of(k, module.heads).mT * module.scale
            if mask is not None:
                compared = compared + ((1 - mask.float()) * -10000.0)[:, None, None]
            weights = compared.softmax(-1)[-len(QUERIES) :]  # of the two branches the second is the prompt's
            for i, row in enumerate(weights):
                for place in maps.places(i):
                    found = maps.at_word(place.word, nth=place.nth, which=MapChoice(query=i))[layer][step]
                    assert torch.equal(found.flatten(1), row[:, :, list(place.tokens)].sum(-1))


def projected(attention: Any, x: Tensor, names: tuple[str, str], norms: tuple[str, str]) -> tuple[Tensor, Tensor]:
    q, k = (heads_of(getattr(attention, name)(x), attention.heads) for name in names)
    for name in norms:
        norm = getattr(attention, name, None)
        q, k = (
            (norm(q) if norm is not None and name == norms[0] else q),
            (norm(k) if norm is not None and name == norms[1] else k),
        )
    return q, k


def test_joint_maps_are_those_of_queries_and_keys_with_norms_to_the_bit():
    subject = tiny_sd3()
    layer = "transformer_blocks.1.attn"
    made: list[Any] = []
    given = kept(subject, {"attn": layer}, lambda: made.append(_each(subject, [layer])), "in")["attn"]
    attention = subject.components["transformer"].get_submodule(layer)
    for step, (_, kwargs) in enumerate(given):
        image, text = kwargs["hidden_states"], kwargs["encoder_hidden_states"]
        with torch.no_grad():
            qi, ki = projected(attention, image, ("to_q", "to_k"), ("norm_q", "norm_k"))
            _, kt = projected(attention, text, ("add_q_proj", "add_k_proj"), ("norm_added_q", "norm_added_k"))
            weights = (qi @ torch.cat([ki, kt], 2).mT * qi.shape[-1] ** -0.5).softmax(-1)[-2:]
        _assert_words(made[0], layer, step, weights[..., image.shape[1] :])


@pytest.mark.parametrize("layer", ["transformer_blocks.1.attn", "single_transformer_blocks.0.attn"])
def test_joint_maps_are_those_of_rotated_queries_and_keys_to_the_bit(layer):
    subject = tiny_flux()
    made: list[Any] = []
    given = kept(subject, {"attn": layer}, lambda: made.append(_each(subject, [layer])), "in")["attn"]
    attention = subject.components["transformer"].get_submodule(layer)
    for step, (_, kwargs) in enumerate(given):
        x, rope = kwargs["hidden_states"], kwargs["image_rotary_emb"]
        text = kwargs.get("encoder_hidden_states")
        with torch.no_grad():
            q, k = projected(attention, x, ("to_q", "to_k"), ("norm_q", "norm_k"))
            if text is not None:
                qt, kt = projected(attention, text, ("add_q_proj", "add_k_proj"), ("norm_added_q", "norm_added_k"))
                q, k = torch.cat([qt, q], 2), torch.cat([kt, k], 2)
            q, k = (cast(Tensor, apply_rotary_emb(y, rope, sequence_dim=2)) for y in (q, k))
            tokens = q.shape[2] - 16
            weights = (q[:, :, tokens:] @ k.mT * q.shape[-1] ** -0.5).softmax(-1)[-2:]
        _assert_words(made[0], layer, step, weights[..., :tokens])


def _each(subject: Any, layers: list[str]) -> Any:
    return attention_maps(subject, QUERIES, layers=layers, sampling=GUIDED, options=MapOptions(heads="each"))


def _assert_words(maps: Any, layer: str, step: int, to_text: Tensor) -> None:
    for i in range(len(QUERIES)):
        for place in maps.places(i):
            found = maps.at_word(place.word, nth=place.nth, which=MapChoice(query=i))[layer][step].flatten(1)
            assert torch.equal(found, to_text[i][:, :, list(place.tokens)].sum(-1))


@pytest.mark.parametrize("name", KINDS)
def test_what_is_seen_is_what_each_layer_goes_on_with(name):
    """Weights times values are what the matrix behind the attention gets, and pictures stay as they are to the bit."""
    subject = subject_of(name)
    layers = [layer for layer in subject.attentions() if layer.kind != "linear"]
    seen: dict[str, list[Tensor]] = {}
    looks = {
        layer: (lambda call, moment, n=layer.name: seen.setdefault(n, []).append(call.weights() @ call.value))
        for layer in layers
    }
    before, stamp, weights = subject.generate(QUERIES, GUIDED), subject.stamp(), subject.weight_hash(whole=True)
    pictures: list[Tensor] = []

    def run() -> None:
        with attending(subject, looks), torch.no_grad():
            pictures.append(subject.generate(QUERIES, GUIDED))

    given = kept(subject, {layer.name: layer.out.path for layer in layers}, run, "in")
    assert torch.equal(pictures[0], before)
    assert subject.stamp() == stamp and subject.weight_hash(whole=True) == weights
    assert torch.equal(subject.generate(QUERIES, GUIDED), before)
    for layer in layers:
        for (args, _), read in zip(given[layer.name], seen[layer.name], strict=True):
            flat = read.transpose(1, 2).flatten(2)
            rows = args[0].shape[1]
            first = flat[:, :rows] if _image_first(subject, layer) else flat[:, -rows:]
            torch.testing.assert_close(first, args[0][..., : flat.shape[-1]], atol=2e-5, rtol=1e-4)


def _image_first(subject: Any, layer: Any) -> bool:
    return layer.kind != "joint" or subject.joint.image_first


@pytest.mark.parametrize("name", KINDS)
def test_all_that_a_patch_looks_at_adds_up_to_one(name):
    subject = subject_of(name)
    wanted = ("cross",) if name == "sana" else ("cross", "joint")
    branches = ("cond", "uncond") if subject.guidance(GUIDED).needs_null_text else ("cond",)
    maps = attention_maps(subject, QUERIES, sampling=GUIDED, options=MapOptions(heads="each", branches=branches))
    assert set(maps.layers.values()) <= set(wanted)
    for branch in maps.branches:
        for i in range(len(QUERIES)):
            parts = [maps.at_kind(kind, MapChoice(query=i, branch=branch)) for kind in ATTENDED]
            for layer, (h, w) in maps.grids.items():
                total = torch.stack([part[layer] for part in parts]).sum(0)
                assert total.shape[-2:] == (h, w)
                torch.testing.assert_close(total, torch.ones_like(total), atol=3e-6, rtol=0)
    for i, query in enumerate(QUERIES):  # the words are tokens of the prompt, and together no more than its own
        words = torch.stack([maps.of(word, which=MapChoice(query=i)) for word in maps.words(i)]).sum(0)
        own = maps.kind("content", MapChoice(query=i)) + maps.kind("subject", MapChoice(query=i))
        assert float((words - own).max()) < 1e-5 and float(words.min()) > 0
        assert maps.words(i) == words_of(query.prompt.text)
    torch.testing.assert_close(maps.of("sun"), maps.kind("subject"))


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (tiny_sd, "mid_block.attentions.0.transformer_blocks.0.attn2"),
        (tiny_flux, "transformer_blocks.0.attn"),
        (tiny_flux, "single_transformer_blocks.1.attn"),
    ],
)
def test_the_value_of_a_token_weighs_by_what_it_adds_to_the_stream(make, layer):
    subject = make()
    (one,) = (x for x in subject.attentions() if x.name == layer)
    calls: list[Any] = []
    with attending(subject, {one: lambda call, moment: calls.append((call, subject.matrix(one.out)))}):
        options = MapOptions(heads="each", measure="value")
        maps = attention_maps(subject, QUERIES[:1], layers=[layer], sampling=PLAIN, options=options)
    for step, (call, matrix) in enumerate(calls):
        _, heads, _, d = call.value.shape
        first = call.query.shape[2] - maps.grids[layer][0] * maps.grids[layer][1]
        for place in maps.places():
            wanted = torch.zeros(heads, call.query.shape[2])
            for h in range(heads):
                for t in place.tokens:
                    moved = matrix[:, h * d : (h + 1) * d] @ call.value[0, h, t]
                    wanted[h] += (call.weights()[0, h, :, t, None] * moved).norm(dim=-1)
            found = maps.at_word(place.word, nth=place.nth)[layer][step].flatten(1)
            torch.testing.assert_close(found, wanted[:, first:])
