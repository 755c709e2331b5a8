"""Attention maps: exactly what each layer computes, for every class of pipeline, and nothing changed by looking."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from concept_probe.activations import tap
from concept_probe.activations.attention import AttentionCall, attending, masking
from concept_probe.families.diffusion.trajectory import SamplingHook
from concept_probe.families.text.tokens import TooLong
from concept_probe.find.attention import sums
from concept_probe.find.attention.batch import MapOptions
from concept_probe.find.attention.collect import attention_maps
from concept_probe.find.attention.maps import MapChoice
from concept_probe.find.attention.need import NeedOptions, _Cut, need_maps
from concept_probe.find.attention.sums import ATTENDED, AttendedRows
from concept_probe.find.attention.words import said_in, words_of
from concept_probe.registry import UnknownName
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.testing.models.read_by_lm import READ_BY_LM
from concept_probe.testing.models.transformers import TRANSFORMERS, tiny_flux, tiny_sd3
from concept_probe.types import Prompt, Query, Sampling

KINDS = {**DIFFUSION, **TRANSFORMERS, **READ_BY_LM}
QUERIES = [Query(Prompt("the cat and a cat, red sun", "sun"), 1), Query(Prompt("a dog in the red thing"), 2)]
GUIDED = Sampling(steps=2, guidance=3.0)
PLAIN = Sampling(steps=2, guidance=0.0)


@cache
def subject_of(name: str) -> Any:
    return KINDS[name]()


def kept(subject: Any, modules: dict[str, str], run: Any, side: str = "out") -> dict[str, list[Any]]:
    """What passes modules of the denoiser, by the names of `modules`; hooks of torch's own, no tap."""
    out: dict[str, list[Any]] = {name: [] for name in modules}
    root: nn.Module = subject.components[subject.denoiser]
    handles = []
    for name, path in modules.items():
        module = root.get_submodule(path)
        if side == "out":
            handles.append(module.register_forward_hook(lambda _m, _a, y, n=name: out[n].append(y)))
        else:
            handles.append(
                module.register_forward_pre_hook(lambda _m, a, k, n=name: out[n].append((a, k)), with_kwargs=True)
            )
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return out


def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


# -- exactness --------------------------------------------------------------------------------------------------------


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


# -- guidance, batches, sizes, words ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sd", "flux", "lumina-2", "z-image"])
def test_maps_are_the_prompts_whatever_the_guidance_and_the_batch(name):
    subject = subject_of(name)
    of = {"sampling": Sampling(2, 3.0, batch=2), "words": [["cat"], ["dog"]], "options": MapOptions(steps=[0])}
    both = attention_maps(subject, QUERIES, **of)
    one_by_one = attention_maps(subject, QUERIES, **{**of, "sampling": Sampling(2, 3.0, batch=1)})
    unguided = attention_maps(subject, QUERIES, **{**of, "sampling": Sampling(2, 0.0)})
    for i, word in enumerate(("cat", "dog")):
        wanted = both.of(word, which=MapChoice(query=i))
        torch.testing.assert_close(one_by_one.of(word, which=MapChoice(query=i)), wanted, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(unguided.of(word, which=MapChoice(query=i)), wanted, atol=1e-6, rtol=1e-4)
    turned = attention_maps(subject, QUERIES[::-1], **{**of, "words": [["dog"], ["cat"]]})
    torch.testing.assert_close(turned.of("cat", which=MapChoice(query=1)), both.of("cat"), atol=1e-6, rtol=1e-4)
    assert float((both.of("cat") - both.of("dog", which=MapChoice(query=1))).abs().max()) > 1e-5


def test_the_other_branch_reads_the_empty_prompt():
    subject = tiny_sd()
    options = MapOptions(steps=[0], branches=("cond", "uncond"))
    maps = attention_maps(subject, QUERIES[:1], sampling=GUIDED, options=options)
    empty = attention_maps(subject, [Query(Prompt(""), 1)], sampling=PLAIN, options=MapOptions(steps=[0]))
    for kind in ("bos", "eos", "pad"):
        found = maps.kind(kind, MapChoice(branch="uncond"))
        torch.testing.assert_close(found, empty.kind(kind), atol=1e-6, rtol=1e-5)
    assert float(maps.kind("content", MapChoice(branch="uncond")).max()) == 0
    with pytest.raises(ValueError, match="branch 'uncond', which reads no prompt"):
        maps.of("cat", which=MapChoice(branch="uncond"))
    with pytest.raises(ValueError, match="branch 'uncond' was asked for, and the guidance does not run it"):
        attention_maps(subject, QUERIES[:1], sampling=PLAIN, options=options)
    with pytest.raises(UnknownName, match="branch 'uncond' not found"):
        empty.kind("bos", MapChoice(branch="uncond"))


@pytest.mark.parametrize(
    ("name", "size"), [("sd", (16, 32)), ("sdxl", (32, 16)), ("flux", (16, 32)), ("lumina-2", (128, 64))]
)
def test_maps_of_pictures_that_are_not_square(name, size):
    subject = subject_of(name)
    with subject.sized(*size):
        latents, seen = subject.latent_shape[-2:], []
        layer = next(one for one in subject.attentions() if one.kind in ("cross", "joint"))
        with attending(subject, {layer: lambda call, moment: seen.append(call.weights())}):
            maps = attention_maps(
                subject, QUERIES[:1], sampling=PLAIN, options=MapOptions(heads="each", points=[(0.0, 0.9)])
            )
    for grid in maps.grids.values():
        assert grid[0] * latents[1] == grid[1] * latents[0] and grid[0] != grid[1]
    h, w = maps.grids[layer.name]
    place = maps.places()[0]
    whole = seen[0][0, :, -h * w :] if layer.kind == "joint" else seen[0][0]
    row = whole[:, 1 * w + (w - 1), list(place.tokens)].sum(-1)  # the second row's last patch
    assert torch.equal(maps.at_word(place.word, nth=0)[layer.name][0, :, 1, w - 1], row)
    assert maps.picture().shape == (3, *size) and maps.of("cat", which=MapChoice(size=size)).shape == size


def test_weights_are_held_a_part_at_a_time(monkeypatch):
    subject, kept_at_once = subject_of("flux"), []
    whole = attention_maps(subject, QUERIES, sampling=GUIDED)
    weights = AttentionCall.weights

    def counted(call: AttentionCall, rows: slice = slice(None)) -> Tensor:
        out = weights(call, rows)
        kept_at_once.append(out.numel())
        return out

    monkeypatch.setattr(sums, "WEIGHTS_AT_ONCE", 2000)
    monkeypatch.setattr(AttentionCall, "weights", counted)
    parts = attention_maps(subject, QUERIES, sampling=GUIDED)
    assert max(kept_at_once) <= 2000
    torch.testing.assert_close(parts.of("cat"), whole.of("cat"), atol=1e-7, rtol=1e-5)


def test_each_occurrence_of_a_word_has_its_map_and_all_have_one():
    maps = attention_maps(tiny_sd(), QUERIES[:1], words=["Cat", "red sun"], sampling=PLAIN)
    first, second = (place for place in maps.places() if place.word == "Cat")
    assert first.nth == 0 and second.nth == 1 and max(first.tokens) < min(second.tokens)
    torch.testing.assert_close(maps.of("cat", nth=0) + maps.of("cat", nth=1), maps.of("cat"))
    assert not torch.equal(maps.of("cat", nth=0), maps.of("cat", nth=1))
    assert len(maps.places()[-1].tokens) == 2  # a phrase is all of its words
    with pytest.raises(ValueError, match=r"occurrence 2 of 'cat' was asked for, and .* says it 2 times, number 0 to 1"):
        maps.of("cat", nth=2)
    with pytest.raises(UnknownName, match=r"word 'dog' not found.*known: Cat, red sun"):
        maps.of("dog")


def test_a_word_that_the_prompt_does_not_say_is_refused_with_those_that_it_does():
    subject = tiny_sd()
    with pytest.raises(
        ValueError, match=r"'ca' is not a word of the prompt .*; its words are: 'the', 'cat', 'and', 'a', 'red', 'sun'"
    ):
        attention_maps(subject, QUERIES[:1], words=["ca"])
    with pytest.raises(ValueError, match="'cat' is not a word of the prompt 'a dog in the red thing'"):
        attention_maps(subject, QUERIES, words=["cat"])
    with pytest.raises(ValueError, match="1 lists of words were given for 2 prompts"):
        attention_maps(subject, QUERIES, words=[["cat"]])
    with pytest.raises(TypeError, match=r"words are 'cat'; they are a list, such as \['cat'\]"):
        attention_maps(subject, QUERIES, words="cat")
    assert [one.nth for one in said_in(Prompt("ein Hütchen, hütchen"), "hütchen")] == [0, 1]


def test_words_behind_the_last_token_are_left_out_unless_they_are_asked_for():
    long = [Prompt("a cat in the red sun of the picture of the dog thing in the sun of a dragon")]
    with pytest.warns(UserWarning, match="only the first 20 tokens"):
        maps = attention_maps(subject_of("sd"), long, sampling=PLAIN)
    assert "dog" in maps.words() and "dragon" not in maps.words()
    with pytest.raises(TooLong, match=r"'dragon' of .* lies behind the 20 tokens"):
        attention_maps(subject_of("sd"), long, words=["dragon"], sampling=PLAIN)


def test_a_trajectory_that_begins_later_has_no_maps_of_the_passes_before():
    subject = subject_of("sd")
    hook = SamplingHook(start=lambda trajectory, rows: trajectory.starts_at(1))
    with subject.hooked(hook):
        with pytest.raises(ValueError, match="pass 0 of the trajectory was not met"):
            attention_maps(subject, QUERIES, sampling=PLAIN)
        assert attention_maps(subject, QUERIES, sampling=PLAIN, options=MapOptions(steps=[1])).steps == (1,)


# -- points, layers, what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sd", "sd3", "z-image"])
def test_where_a_place_of_the_picture_looks_in_it(name):
    subject = subject_of(name)
    maps = attention_maps(
        subject, QUERIES, sampling=PLAIN, options=MapOptions(points=[(0.3, 0.9), (1.0, 1.0)], heads="each")
    )
    for layer, kind in maps.layers.items():
        if kind == "cross":
            continue
        for point, (y, x) in enumerate(maps.points):
            seen = maps.at_point(point)[layer].sum((-2, -1))
            h, w = maps.grids[layer]
            at = min(int(y * h), h - 1), min(int(x * w), w - 1)
            wanted = 1.0 if kind == "self" else maps.at_kind("image")[layer][..., at[0], at[1]]
            if not (name == "z-image" and kind == "self"):  # which fills the image up with rows that it looks at too
                torch.testing.assert_close(seen, torch.as_tensor(wanted).expand_as(seen), atol=2e-6, rtol=0)
    assert maps.seen_from(1).shape == maps.of("cat").shape
    with pytest.raises(ValueError, match="point 2 was asked for, and 2 were kept"):
        maps.seen_from(2)


def test_layers_that_have_no_such_map_are_refused_by_name():
    sana, sd = subject_of("sana"), subject_of("sd")
    with pytest.raises(
        ValueError, match=r"layer 'transformer_blocks.0.attn1' is a linear attention, which has no weight"
    ):
        attention_maps(sana, QUERIES, layers=["transformer_blocks.0.attn1"])
    with pytest.raises(
        ValueError, match=r"in none of its layers with weights does the image look at itself \(2 linear, 2 cross\)"
    ):
        attention_maps(sana, QUERIES, options=MapOptions(points=[(0.5, 0.5)]))
    with (
        pytest.raises(ValueError, match="is a linear attention"),
        attending(sana, {sana.attentions()[0]: lambda c, m: None}),
    ):
        pass
    with pytest.raises(ValueError, match="the image looks at itself, and at no word; give `points`"):
        attention_maps(sd, QUERIES, layers=["self"])
    with pytest.raises(UnknownName, match="layer 'mid' not found"):
        attention_maps(sd, QUERIES, layers=["mid"])
    with pytest.raises(ValueError, match="pass 7 was asked for; sampling has passes 0 to 1"):
        attention_maps(sd, QUERIES, sampling=PLAIN, options=MapOptions(steps=[7]))
    with pytest.raises(ValueError, match="attention maps are of models that draw pictures"):
        attention_maps(next(iter(LANGUAGE.values()))(), QUERIES)
    with pytest.raises(ValueError, match="no prompt was given"):
        attention_maps(sd, [])


def test_an_attention_that_is_computed_otherwise_is_refused_and_hooks_are_gone():
    subject = tiny_sd()
    subject.pipeline.unet.set_attn_processor(AttnProcessor())
    stamp = subject.stamp()
    with pytest.raises(
        ValueError, match=r"was not seen, since its module called .* 0 times, not once; .*set_default_attn_processor"
    ):
        attention_maps(subject, QUERIES, sampling=PLAIN)
    assert subject.stamp() == stamp


def test_half_precision_is_widened_as_fused_kernels_do():
    subject = tiny_sd()
    for component in subject.components.values():
        component.to(torch.bfloat16)
    maps = attention_maps(subject, QUERIES, sampling=PLAIN)
    total = torch.stack([maps.kind(kind) for kind in ATTENDED]).sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)


# -- pictures that are held, and attention that is cut ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sd", "sdxl", "flux"])
def test_given_pictures_are_what_the_denoiser_sees_with_each_steps_noise(name):
    subject, seen = subject_of(name), []
    pictures = torch.rand(2, 3, *subject.picture_size, generator=torch.Generator().manual_seed(0))
    site = subject.sites("denoiser_in")[0]
    with tap(subject, {site: lambda x, moment: seen.append(x.clone())}):
        maps = attention_maps(subject, QUERIES, pictures=pictures, sampling=PLAIN)
    walk, clean = subject.trajectory([1, 2], 2), subject.latents(pictures)
    noise = walk.latents / walk.schedule.starting_std
    for step, x in enumerate(seen):
        torch.testing.assert_close(x, walk.schedule.noised(clean, noise, walk.level(step)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(maps.picture(1), subject.decode(clean)[1], atol=0.003, rtol=0)
    assert subject.hooks == ()
    with pytest.raises(ValueError, match=r"pictures are \(1, 3, 16, 16\); they are one for each of 2 prompts"):
        attention_maps(subject, QUERIES, pictures=pictures[:1], sampling=PLAIN)


@pytest.mark.parametrize("name", ["sd", "sd3", "flux", "pixart-alpha", "lumina-2", "sana", "z-image"])
def test_cut_attention_looks_at_all_else(name):
    subject = subject_of(name)
    prompts = [QUERIES[0].prompt, QUERIES[0].prompt]
    places = attention_maps(subject, QUERIES[:1], words=["cat"], sampling=PLAIN).places()
    tokens = [token for place in places for token in place.tokens]
    layers = [layer for layer in subject.attentions() if layer.kind in ("cross", "joint")]
    condition, times = subject.encode(prompts), torch.full((2,), 500.0)
    x = torch.randn(1, *subject.latent_shape, generator=torch.Generator().manual_seed(0)).expand(
        2, *subject.latent_shape
    )
    seen = []

    def look(layer: Any) -> Any:
        return lambda call, moment: seen.append((call.weights(), AttendedRows.of(subject, layer, call.query, call.key)))

    masks = _Cut(subject, layers, [[], tokens]).masks()
    with torch.no_grad():
        plain = subject.predict(x, times, condition)
        with attending(subject, {one: look(one) for one in layers}), masking(subject, masks):
            cut = subject.predict(x, times, condition)
    with masking(subject, masks), pytest.raises(ValueError, match="enter `attending` before `masking`"):
        attention_maps(subject, QUERIES, sampling=PLAIN)
    torch.testing.assert_close(cut[0], plain[0], atol=1e-5, rtol=1e-4)
    assert float((cut[1] - plain[1]).abs().max()) > 1e-6
    for weights, columns in seen:
        keys, queries = columns.text[1, tokens], columns.queries[1]
        assert float(weights[1][:, queries][:, :, keys].max()) == 0
        assert float(weights[0][:, queries][:, :, keys].min()) > 0
        torch.testing.assert_close(weights[1].sum(-1), torch.ones_like(weights[1].sum(-1)), atol=2e-6, rtol=0)


def test_errors_without_a_word_are_those_of_the_prompt_without_it():
    subject = tiny_sd()
    pictures = torch.rand(1, 3, *subject.picture_size, generator=torch.Generator().manual_seed(0))
    of = {"words": ["cat", "sun"], "pictures": pictures, "sampling": Sampling(steps=4, guidance=3.0)}
    maps = need_maps(subject, QUERIES[:1], **of, options=NeedOptions(seeds=1, steps=[1, 2]))
    assert maps.steps == (1, 2) and maps.words() == ["cat", "sun"]
    walk, clean = subject.trajectory([1], 4), subject.latents(pictures)
    noise = walk.latents / walk.schedule.starting_std
    errors: dict[str, list[Tensor]] = {QUERIES[0].prompt.text: [], "the and a , red sun": []}
    for step in maps.steps:
        x = walk.schedule.noised(clean, noise, walk.level(step))
        for text, found in errors.items():
            with torch.no_grad():
                out = subject.predict(x, walk.timesteps[step].expand(1), subject.encode([Prompt(text)]))
            found.append((out - noise).square().mean(1)[0])
    whole, without = (torch.stack(found) for found in errors.values())
    torch.testing.assert_close(maps.whole[0], whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(maps.of("cat"), (without - whole).mean(0), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(maps.of("CAT", against="sun"), maps.of("cat") - maps.of("sun"), atol=1e-6, rtol=1e-4)
    with pytest.raises(UnknownName, match="word 'dog' not found"):
        maps.of("cat", against="dog")
    cut = need_maps(subject, QUERIES[:1], **of, options=NeedOptions(seeds=1, steps=[1, 2], without="attention"))
    torch.testing.assert_close(cut.whole, maps.whole, atol=1e-5, rtol=1e-4)
    assert float((cut.of("cat") - maps.of("cat")).abs().max()) > 1e-6
    with pytest.raises(
        ValueError, match=r"layers were named, and a word is left out of the prompt; say without='attention'"
    ):
        NeedOptions(layers=["cross"])


def test_the_middle_two_fifths_of_the_steps_are_compared():
    of = {"words": ["cat"], "pictures": torch.rand(1, 3, 16, 16)}
    for steps, wanted in ((1, (0,)), (4, (1,)), (10, (3, 4, 5, 6))):
        maps = need_maps(subject_of("sd"), QUERIES[:1], **of, sampling=Sampling(steps), options=NeedOptions(seeds=1))
        assert maps.steps == wanted


def test_pictures_are_drawn_where_none_are_given():
    maps = need_maps(
        subject_of("sd3"), QUERIES, words=["red"], sampling=GUIDED, options=NeedOptions(steps=[0], seeds=1)
    )
    assert maps.whole.shape == (2, 1, 8, 8) and maps.of("red", query=1).shape == (8, 8)


@pytest.mark.parametrize("worth", [255.0, -1.0, float("nan")])
def test_pictures_beyond_black_and_white_are_refused(worth):
    """Pixels in 0..255 would be encoded as pictures that nobody has seen, and their maps look like any other."""
    subject = tiny_sd()
    pictures = torch.zeros(2, 3, *subject.picture_size)
    pictures[1, 0, 0, 0] = worth
    for make in (attention_maps, need_maps):
        with pytest.raises(ValueError, match=r"their pixels are numbers in 0\.\.1"):
            make(subject, QUERIES, pictures=pictures, sampling=PLAIN)
