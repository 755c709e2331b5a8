"""Answers in words: what counts as right, and how likely a model finds it."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.detect.answers import (
    answer_probability,
    answer_trials,
    bleu,
    cloze_rank,
    continuation,
    is_right,
    place,
    rouge_l,
    words,
)
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Prompt, Query

CAPITAL = Prompt("What is the capital of France?", None, "France", "chat", ("Paris",), ("London", "New York"))
PROMPTS = [
    Prompt("the red", answers=("cat", "sun"), distractors=("x",)),
    Prompt("a user", form="chat", answers=("sun", "dog"), distractors=("red",)),
]


@pytest.fixture(params=["llama", "qwen2", "gemma"])
def subject(request):
    return LANGUAGE[request.param]()


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("The capital of France is Paris.", True),
        ("PARIS", True),
        ("It is Paris, not London.", True),
        ("London, and not Paris.", False),
        ("New York or Paris", False),
        ("York is smaller than Paris.", True),  # only part of a distractor
        ("Comparison is hard; a Parisian knows.", False),  # no whole word
        ("", False),
    ],
)
def test_what_is_right(text, right):
    assert is_right(text, CAPITAL) is right
    (trial,) = answer_trials([text], [Query(CAPITAL)])
    assert (trial.seen, trial.probability) == (("France", 1.0) if right else ("none", 0.0))


def test_answers_of_several_words_and_other_spellings():
    prompt = Prompt("q", answers=("Mount Fuji", "Fujisan"))
    assert is_right("That is mount fuji!", prompt) and is_right("fujisan", prompt)
    assert not is_right("Fuji, a mount", prompt)
    assert words("Ｐａｒｉｓ 1789_90") == ("paris", "1789", "90")
    assert place("a b a b c", ["b c", "x"]) == 3 and place("a", ["", "b"]) is None
    assert answer_trials(["yes"], [Query(Prompt("q", answers=("yes",)))])[0].seen == "right"


def test_what_cannot_be_judged_is_refused(subject):
    bare = Prompt("the red")
    with pytest.raises(ValueError, match="'the red' has no answers, so no text is a right one"):
        is_right("x", bare)
    with pytest.raises(ValueError, match="1 texts for 2 queries"):
        answer_trials(["x"], [Query(CAPITAL), Query(CAPITAL)])
    for metric in (answer_probability, cloze_rank):
        with pytest.raises(ValueError, match="'the red' has no answers whose likelihood could be asked for"):
            metric(subject, [bare])
        assert metric(subject, []).shape == (0,)


def test_probability_is_the_sum_over_answers(subject):
    got = answer_probability(subject, PROMPTS)
    for prompt, value in zip(PROMPTS, got.tolist(), strict=True):
        each = [float(subject.log_probs([(prompt, continuation(prompt, a))]).total.exp()) for a in prompt.answers]
        assert value == pytest.approx(sum(each), rel=1e-4)


def test_rank_counts_likelier_first_tokens(subject):
    got = cloze_rank(subject, PROMPTS)
    for prompt, rank in zip(PROMPTS, got.tolist(), strict=True):
        order = subject.next_logits([prompt])[0].argsort(descending=True).tolist()
        firsts = [subject.spelled_after(prompt, continuation(prompt, a))[0] for a in prompt.answers]
        assert rank == 1 + min(order.index(t) for t in firsts)


def test_a_model_that_is_made_to_say_it_ranks_it_first(subject):
    asked = [Prompt("the red", answers=("cat",))]
    before = float(answer_probability(subject, asked))
    (out,) = subject.sites("text_out")
    rows = subject.matrix(subject.sites("unembed")[0]).detach()
    word = torch.linalg.solve(rows.mT @ rows, rows[subject.tokenizer(" cat").input_ids[-1]])  # and little of others
    word = word / (rows @ word).max()
    with tap(subject, {out: lambda x, moment: x + 80 * word}):
        assert cloze_rank(subject, asked).tolist() == [1]
        assert float(answer_probability(subject, asked)) > max(0.5, before)
    with tap(subject, {out: lambda x, moment: x - 80 * word}):
        assert cloze_rank(subject, asked).tolist()[0] > 100


def test_spelled_after_is_what_the_likelihood_counts(subject):
    pair = (PROMPTS[0], " cat and dog")
    added = subject.spelled_after(*pair)
    assert len(added) == int(subject.log_probs([pair]).tokens)
    assert subject.tokenizer.decode(list(added)).strip() == "cat and dog"
    with pytest.raises(ValueError, match="has no token of its own"):
        subject.spelled_after(PROMPTS[0], "")


def plain_lcs(a, b):
    return max(len(p) for n in range(len(a) + 1) for p in combinations(a, n) if _within(p, b))


def _within(p, b):
    rest = iter(b)
    return all(word in rest for word in p)


def test_rouge_l_is_that_of_every_subsequence():
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        a, b = (
            [
                "abcd"[i]
                for i in torch.randint(4, (int(torch.randint(1, 8, (1,), generator=generator)),), generator=generator)
            ]
            for _ in range(2)
        )
        common = plain_lcs(a, b)
        expected = 2 * (common / len(a)) * (common / len(b)) / (common / len(a) + common / len(b)) if common else 0.0
        assert rouge_l(" ".join(a), " ".join(b)) == pytest.approx(expected)
    assert rouge_l("The cat sat.", "the CAT sat") == 1.0 and rouge_l("", "x") == 0.0 == rouge_l("x", "?")
    assert rouge_l("sat cat the", "the cat sat") == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("The cat sat.", "the cat sat", 1),
        ("the cat sat", "the cat sat down", math.exp(-1 / 3)),  # every run is known, one word of four is missing
        ("a b c d", "a c b d", (1 / 4 * 1 / 3 * 1 / 2) ** 0.25),  # all words, and none of 3, 2 and 1 longer runs
        ("a a a", "a", (1 / 3 * 1 / 3 * 1 / 2 * 1) ** 0.25),  # a word counts as often as the reference has it
        ("Paris", "London", 0),
        ("", "London", 0),
        ("Paris", "", 0),
    ],
)
def test_bleu_by_hand(text, reference, expected):
    assert bleu(text, reference) == pytest.approx(expected)
