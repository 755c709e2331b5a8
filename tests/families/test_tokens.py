"""Every position of a prompt is known for what it is."""

from __future__ import annotations

import pytest
import torch

from concept_probe.families.text import tokens
from concept_probe.testing.models.diffusion import DIFFUSION, LENGTH
from concept_probe.types import BOS, CONTENT, EOS, PAD, SUBJECT, Prompt


@pytest.fixture(params=DIFFUSION)
def subject(request):
    return DIFFUSION[request.param]()


def kinds(subject, prompt):
    return subject.tokenise([prompt]).kinds_of[-1][0].tolist()


def test_kinds(subject):
    expected = [BOS, CONTENT, *[SUBJECT] * 4, CONTENT, CONTENT, EOS]  # ca-m-e-l
    assert kinds(subject, Prompt("a camel in red", "camel")) == [*expected, *[PAD] * (LENGTH - 9)]


def test_the_empty_prompt_has_an_end_and_nothing_else(subject):
    assert kinds(subject, Prompt("")) == [BOS, EOS, *[PAD] * (LENGTH - 2)]


def test_a_subject_is_found_wherever_it_is_named_whatever_its_case(subject):
    found = [i for i, k in enumerate(kinds(subject, Prompt("Cat, the cat", "cat"))) if k == SUBJECT]
    assert found == [1, 4]


def test_a_whole_word_is_preferred_to_a_part_of_one(subject):
    found = [i for i, k in enumerate(kinds(subject, Prompt("catdog cat", "cat"))) if k == SUBJECT]
    assert found == [i for i, k in enumerate(kinds(subject, Prompt("catdog cat"))) if k == CONTENT][-1:]
    assert SUBJECT in kinds(subject, Prompt("cats", "cat"))


def test_a_subject_of_two_words(subject):
    assert kinds(subject, Prompt("a red cat", "red cat"))[:5] == [BOS, CONTENT, SUBJECT, SUBJECT, EOS]


class Slow:
    """A tokenizer without offsets, as older library versions load."""

    def __init__(self, fast):
        self.fast, self.is_fast, self.model_max_length = fast, False, fast.model_max_length

    def __call__(self, text, **options):
        if "return_offsets_mapping" in options:
            raise NotImplementedError
        return self.fast(text, **options)


def test_tokenizers_without_offsets_find_the_same_positions(subject):
    fast = subject.pipeline.tokenizer
    prompts = [Prompt("a camel in red", "camel"), Prompt("Cat, the cat", "cat"), Prompt("the red dog", "red dog")]
    for a, b in zip(tokens.tokenise(fast, prompts), tokens.tokenise(Slow(fast), prompts), strict=True):
        assert torch.equal(a, b)


def test_a_subject_that_is_not_there_is_an_error(subject):
    with pytest.raises(ValueError, match="the subject 'camel' is not in the text 'a cat'"):
        subject.tokenise([Prompt("a cat", "camel")])


def test_what_is_cut_off_is_said(subject):
    with pytest.warns(
        UserWarning, match=f"only the first {LENGTH} tokens of 'cat abc.* are read; 'bcdefgh abcdefgh' is not"
    ):
        tail = subject.tokenise([Prompt("cat " + "abcdefgh " * 4, "cat")]).kinds[0].tolist()
    assert tail[:2] == [BOS, SUBJECT] and tail[-1] == EOS and PAD not in tail
    with pytest.raises(tokens.TooLong, match="lies behind the 20 tokens"):
        subject.tokenise([Prompt("abcdefgh " * 4 + "cat", "cat")])


def test_ids_are_those_of_the_tokenizers(subject):
    prompts = [Prompt("a cat"), Prompt("the red dog")]
    for ids, tokenizer in zip(subject.tokenise(prompts).ids, subject.text.tokenizers.values(), strict=True):
        expected = tokenizer(
            [p.text for p in prompts], padding="max_length", max_length=LENGTH, return_tensors="pt"
        ).input_ids
        assert torch.equal(ids, expected)
