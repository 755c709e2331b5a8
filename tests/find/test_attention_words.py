"""Whose maps they are: words, branches, batches, sizes, places of the picture, and what has none."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from concept_probe.activations.attention import AttentionCall, attending
from concept_probe.families.diffusion.trajectory import SamplingHook
from concept_probe.families.text.tokens import TooLong
from concept_probe.find.attention import sums
from concept_probe.find.attention.batch import MapOptions
from concept_probe.find.attention.collect import attention_maps
from concept_probe.find.attention.maps import MapChoice
from concept_probe.find.attention.sums import ATTENDED
from concept_probe.find.attention.words import said_in
from concept_probe.registry import UnknownName
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Prompt, Query, Sampling
from tests.find.attention_cases import GUIDED, PLAIN, QUERIES, subject_of


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
