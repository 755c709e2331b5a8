"""Pictures that are held under noise, attention that is cut, and where a picture needs a word."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.activations.attention import attending, masking
from concept_probe.find.attention.collect import attention_maps
from concept_probe.find.attention.need import NeedOptions, _Cut, need_maps
from concept_probe.find.attention.sums import AttendedRows
from concept_probe.registry import UnknownName
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt, Sampling
from tests.find.attention_cases import GUIDED, PLAIN, QUERIES, subject_of


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
