"""What is read in memory is what a store would hold, and what the encoder gives."""

from __future__ import annotations

import pytest
import torch

from concept_probe.activations import (
    CaptureOptions,
    capture,
    read_rows,
    read_site,
    read_states,
    read_texts,
)
from concept_probe.activations.columns import COLUMNS
from concept_probe.activations.states import tokens_of_kind
from concept_probe.registry import UnknownName
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import tiny_llama
from concept_probe.types import EOS, SUBJECT, Prompt, Query, Sampling
from tests.activations.test_store import PROMPTS


@pytest.fixture(scope="module")
def subject():
    return tiny_sd()


@pytest.fixture(scope="module")
def writer():
    return tiny_llama()


@pytest.mark.parametrize(
    "options",
    [
        {"roles": ["text_stream"], "kinds": ["subject", "eos"]},
        {"roles": ["cross_out", "text_out"], "options": CaptureOptions([1], ("cond", "uncond"), torch.float16)},
    ],
)
def test_rows_are_those_of_a_store_to_the_bit(subject, options):
    queries, sampling = [Query(p, i) for i, p in enumerate(PROMPTS[:6])], Sampling(steps=2, batch=4)
    store = capture(subject, queries, sampling=sampling, **options)
    found = read_rows(subject, queries, sampling=sampling, **options)
    assert tuple(found) == store.sites
    for site, block in found.items():
        stored = store.read(site)
        assert torch.equal(block.x, stored.x) and block.x.dtype == stored.x.dtype
        assert set(block.columns) == set(COLUMNS)
        assert all(torch.equal(block.columns[c], stored.columns[c]) for c in COLUMNS)


def test_rows_of_no_kind_and_wrong_requests(subject):
    (block,) = read_rows(subject, [Prompt("a cat")], roles=["text_out"], kinds=["subject"]).values()
    assert len(block.x) == 0 and all(len(block.columns[c]) == 0 for c in COLUMNS)
    with pytest.raises(ValueError, match="no prompt was given"):
        read_rows(subject, [], roles=["text_out"])
    with pytest.raises(UnknownName, match="token kind 'subjects' not found"):
        read_rows(subject, PROMPTS, roles=["text_out"], kinds=["subjects"])


def test_states_are_the_encoder_s_in_the_order_of_the_prompts(subject):
    prompts = (PROMPTS * 30)[:70]  # more than one pass
    (site,) = subject.sites("text_out")
    states = read_states(subject, prompts, [site])[site]
    assert torch.equal(states, subject.encode(prompts).states.detach()) and not states.requires_grad
    ends = read_states(subject, prompts, [site], tokens_of_kind(EOS))[site]
    assert torch.equal(ends[:, 0], states[subject.tokenise(prompts).kinds == EOS])
    assert read_states(subject, prompts, []) == {}


def test_tokens_of_a_kind_are_as_many_as_a_prompt_has(subject):
    prompts = [Prompt("a red cat", "red cat"), Prompt("a cat", "cat"), Prompt("nothing")]
    (site,) = subject.sites("token_embedding")
    found = read_texts(subject, prompts, [site], tokens_of_kind(SUBJECT))[site]
    counts = (subject.tokenise(prompts).kinds == SUBJECT).sum(1).tolist()
    assert [len(x) for x in found] == counts and counts[2] == 0


def test_texts_of_unlike_length_stay_apart(writer):
    prompts = [Prompt("one two three four five"), Prompt("six")]
    site = writer.sites("resid")[0]
    texts = read_texts(writer, prompts, [site])[site]
    lengths = (writer.tokenise(prompts).masks[0] > 0).sum(1).tolist()
    assert [len(x) for x in texts] == lengths and lengths[0] != lengths[1]
    with pytest.raises(ValueError, match=r"for one prompt and .* for another; use read_texts"):
        read_states(writer, prompts, [site])
    x, read = read_site(writer, site, prompts)
    assert read.sum(1).tolist() == lengths
    for row, mine, text in zip(x, read, texts, strict=True):
        torch.testing.assert_close(row[mine], text)
