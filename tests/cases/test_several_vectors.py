"""Words of a textual inversion that has several vectors are read as the pipeline reads them."""

from __future__ import annotations

import pytest
import torch

from concept_probe.erasers import Uce
from concept_probe.families import adopt
from concept_probe.families.text.several_vectors import spelled_out
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.types import SUBJECT, Prompt

TEXTS = ("a <zed> in the sun", "<zed>, the <zed> and <two>", "a cat", "")


def taught(make):
    """A subject with one word of three vectors, and one of two, in each of its encoders."""
    pipe = make().pipeline
    draw = torch.Generator().manual_seed(0)
    for word, count in (("<zed>", 3), ("<two>", 2)):
        for part in ("", "_2"):
            if getattr(pipe, f"text_encoder{part}", None) is None:
                continue
            encoder, words = getattr(pipe, f"text_encoder{part}"), getattr(pipe, f"tokenizer{part}")
            vectors = 2 * torch.randn(count, encoder.config.hidden_size, generator=draw)
            pipe.load_textual_inversion(vectors, token=word, text_encoder=encoder, tokenizer=words)
    return adopt(pipe, "taught")


@pytest.fixture(scope="module", params=[tiny_sd, tiny_sdxl])
def subject(request):
    return taught(request.param)


def test_states_are_the_pipelines(subject):
    pipe = subject.pipeline
    for text in TEXTS:
        own = pipe.encode_prompt(prompt=text, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
        got = subject.encode([Prompt(text)])
        torch.testing.assert_close(got.states, own[0], atol=1e-5, rtol=1e-4)
        if got.pooled is not None:
            torch.testing.assert_close(got.pooled, own[2], atol=1e-5, rtol=1e-4)
        for words in subject.text.tokenizers.values():
            assert spelled_out(words, text)[0] == pipe.maybe_convert_prompt(text, words)


@pytest.mark.parametrize(
    ("text", "name", "marked"),
    [
        ("a <zed> in the sun", "<zed>", [2, 3, 4]),
        ("a <zed> in the sun", "zed", [2, 3, 4]),
        ("a red <zed> cat", "red <zed>", [2, 3, 4, 5]),
        ("<zed> the cat", "cat", [5]),
        ("<two> and <zed>", "<zed>", None),
    ],
)
def test_every_vector_of_a_word_is_its_subject(subject, text, name, marked):
    tokens = subject.tokenise([Prompt(text, name)])
    for ids, kinds, words in zip(tokens.ids, tokens.kinds_of, subject.text.tokenizers.values(), strict=True):
        places = (kinds[0] == SUBJECT).nonzero()[:, 0].tolist()
        assert marked is None or places == marked
        if name == "<zed>":
            assert words.convert_ids_to_tokens(ids[0, places]) == ["<zed>", "<zed>_1", "<zed>_2"]


def test_an_edit_moves_all_of_them(subject):
    concept = tiny_concept()
    asked = Prompt("a <zed>", "<zed>")
    named = type(concept)("zed", type(concept.target)((asked,)), neighbours=concept.neighbours, anchor=concept.anchor)
    edit = Uce(policy="subject", guide="dog", sources=("target",))(subject, named)
    assert edit.made_by["moved_tokens"] == 3


def test_a_word_of_one_vector_stays_as_it_is(subject):
    words = next(iter(subject.text.tokenizers.values()))
    assert spelled_out(words, "a cat, a dog", [(2, 5)]) == ("a cat, a dog", [(2, 5)])
