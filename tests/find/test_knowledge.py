"""What a language model knows is weighed against what it would say anyway."""

from __future__ import annotations

import math

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.find.language.knowledge import NEUTRAL, knowledge, log_odds
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Prompt

PROMPTS = [
    Prompt("the red", answers=(" cat",), distractors=("x", "yz")),
    Prompt("a user", form="chat", answers=("sun", "dog"), distractors=("red",)),
]


@pytest.fixture(scope="module")
def subject():
    return LANGUAGE["llama"]()


def test_log_odds_are_those_of_the_summed_probabilities(subject):
    got = log_odds(subject, PROMPTS, batch=2)
    for prompt, value in zip(PROMPTS, got.tolist(), strict=True):
        space = " " if prompt.form == "plain" else ""

        def chance(texts, prompt=prompt, space=space):
            return sum(math.exp(float(subject.log_probs([(prompt, space + t)]).total)) for t in texts)

        assert value == pytest.approx(math.log(chance(prompt.answers) / chance(prompt.distractors)), abs=1e-4)


def test_the_control_is_the_neutral_text_of_the_same_form(subject):
    seen = knowledge(subject, PROMPTS)
    neutral = [Prompt(NEUTRAL[p.form], form=p.form, answers=p.answers, distractors=p.distractors) for p in PROMPTS]
    torch.testing.assert_close(seen.control, log_odds(subject, neutral))
    torch.testing.assert_close(seen.share, seen.log_odds.sigmoid())


def test_known_is_likelier_than_all_wrong_ones_and_than_before(subject):
    """The model is made to say one word after one prompt, or after any."""
    asked = [Prompt("the red", answers=("cat",), distractors=("dog", "sun"))]
    (out,) = subject.sites("text_out")
    word = subject.matrix(subject.sites("unembed")[0])[subject.tokenizer(" cat").input_ids[-1]]
    red = subject.tokenizer(" red").input_ids[-1]
    (embedding,) = subject.sites("token_embedding")
    row = subject.matrix(embedding)[red] if embedding.side == "weight" else subject.module(embedding).weight[red]

    def after_red(x, moment):
        hit = (ids[0] - row).abs().amax(-1, keepdim=True) < 1e-6
        return x + hit * 50 * word

    ids: list[torch.Tensor] = []
    watch = {embedding: lambda x, moment: ids.clear() or ids.append(x)}
    with tap(subject, {**watch, out: after_red}):
        assert knowledge(subject, asked).known.tolist() == [True]
    with tap(subject, {out: lambda x, moment: x + 50 * word}):  # says it anyway: no knowledge
        seen = knowledge(subject, asked)
        assert float(seen.share) > 0.5 and float(seen.control_share) > 0.5
    with tap(subject, {out: lambda x, moment: x - 50 * word}):
        assert knowledge(subject, asked).known.tolist() == [False]


def test_prompts_without_answers_are_refused(subject):
    with pytest.raises(ValueError, match="'the cat' needs both answers and distractors"):
        log_odds(subject, [Prompt("the cat", answers=("x",))])
    assert log_odds(subject, []).shape == (0,)
