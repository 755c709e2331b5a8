"""Texts are written one token at a time, and a query's text is its own."""

from __future__ import annotations

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.families import CausalLMSubject
from concept_probe.families.language.generate import TokenChoice
from concept_probe.families.language.tokens import spell
from concept_probe.testing.models.language import LANGUAGE, LM_LENGTH
from concept_probe.types import Moment, Prompt, Query, Sampling

PROMPTS = [Prompt("the cat", "cat"), Prompt("see a dog and the red sun"), Prompt("a"), Prompt("the cat", "cat")]
QUERIES = [Query(p, i) for i, p in enumerate(PROMPTS)]


@pytest.fixture(scope="module", params=LANGUAGE)
def subject(request):
    return LANGUAGE[request.param]()


def test_greedy_texts_are_the_library_s(subject):
    for query in QUERIES[:3]:
        ids = torch.tensor([spell(subject.tokenizer, query.prompt).ids])
        out = subject.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=list(subject.ends),
            pad_token_id=0,
        )  # fmt: skip
        expected = subject.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert subject.generate([query], Sampling(tokens=12)) == (expected,)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_batch_order_and_padding_change_nothing(subject, temperature):
    sampling = Sampling(tokens=8, temperature=temperature)
    whole = subject.generate(QUERIES, sampling)
    assert subject.generate(QUERIES, sampling) == whole
    one_by_one = tuple(subject.generate([q], sampling)[0] for q in QUERIES)
    assert one_by_one == whole
    assert subject.generate(QUERIES[::-1], Sampling(tokens=8, temperature=temperature, batch=3))[::-1] == whole
    assert CausalLMSubject("right", subject.pipeline, padding="right").generate(QUERIES, sampling) == whole


def test_seeds_make_a_difference_only_where_something_is_drawn(subject):
    many = [Query(PROMPTS[0], seed) for seed in range(8)]
    assert len(set(subject.generate(many, Sampling(tokens=8)))) == 1
    assert len(set(subject.generate(many, Sampling(tokens=8, temperature=1.0)))) > 4


def test_draws_follow_the_distribution_and_temperature_sharpens_it():
    logits = torch.tensor([0.0, 1.0, 2.0, -30.0])
    n = 4000
    for temperature in (0.5, 1.0, 2.0):
        drawn = TokenChoice(range(n), temperature)(logits.expand(n, -1))
        shares = torch.bincount(drawn, minlength=4) / n
        expected = (logits / temperature).softmax(-1)
        assert float((shares - expected).abs().max()) < 4 * (0.25 / n) ** 0.5
    assert TokenChoice([0], 0.0)(logits[None]).tolist() == [2]
    with pytest.raises(ValueError, match=r"temperature -1\.0 is below 0"):
        TokenChoice([0], -1.0)
    with pytest.raises(FloatingPointError, match="not finite"):
        TokenChoice([0], 0.0)(torch.tensor([[float("nan"), 1.0]]))


def test_a_text_ends_at_the_end_mark_and_the_others_go_on():
    """The second token is made the end mark for one row only."""
    subject = LANGUAGE["llama"]()
    (end,) = subject.ends
    (out,) = subject.sites("text_out")
    plain = subject.generate(QUERIES[:2], Sampling(tokens=6))
    head = subject.matrix(subject.sites("unembed")[0])[end]

    def finish(x, moment):
        if moment.step == 1:
            return torch.cat([x[:1] * 0 + 1000 * head, x[1:]])

    with tap(subject, {out: finish}):
        cut = subject.generate(QUERIES[:2], Sampling(tokens=6))
    assert cut[0] == subject.generate(QUERIES[:1], Sampling(tokens=1))[0] != plain[0]
    assert cut[1] == plain[1]


def test_moments_say_how_much_was_written_and_where_each_row_stands():
    subject = LANGUAGE["gpt2"]()
    seen: list[Moment] = []
    with tap(subject, {subject.sites("resid")[0]: lambda x, moment: seen.append(moment)}):
        subject.generate(QUERIES[:2], Sampling(tokens=3))
    assert [m.step for m in seen] == [None, 1, 2]
    assert {m.prompts for m in seen} == {(0, 1)}
    lengths = [len(spell(subject.tokenizer, p).ids) for p in PROMPTS[:2]]
    for k in (1, 2):
        places = seen[k].places
        assert places is not None and places.tolist() == [[n + k - 1] for n in lengths]


def test_what_cannot_be_written_is_refused():
    subject = LANGUAGE["gpt2"]()
    with pytest.raises(ValueError, match=rf"has 1 tokens and {LM_LENGTH} to be written, and .* at most {LM_LENGTH}"):
        subject.generate([Query(Prompt("a"))], Sampling(tokens=LM_LENGTH))
    with pytest.raises(ValueError, match="tokens is 0; it is a whole number from 1 on"):
        Sampling(tokens=0)
    assert subject.generate([]) == ()
