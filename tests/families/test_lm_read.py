"""How prompts are spelled and read: kinds of token, padding, and the probability of what follows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from concept_probe.activations import capture, tap
from concept_probe.families import CausalLMSubject, LanguageModel
from concept_probe.families.language.tokens import spell
from concept_probe.registry import UnknownName
from concept_probe.testing.models.language import LANGUAGE, LM_LENGTH
from concept_probe.types import BOS, CONTENT, EOS, PAD, SUBJECT, TOKEN_KINDS, Prompt

PROMPTS = [
    Prompt("the cat", "cat"), Prompt("see a dog and the red sun, all day", "dog"), Prompt("the sun"), Prompt("a"),
]  # fmt: skip
CLOSE: Any = {"atol": 2e-5, "rtol": 2e-5}


@pytest.fixture(scope="module", params=LANGUAGE)
def subject(request):
    return LANGUAGE[request.param]()


def right(subject):
    return CausalLMSubject("right", subject.pipeline, padding="right")


def kinds(subject, prompt):
    return subject.tokenise([prompt]).kinds[0].tolist()


def test_kinds_of_plain_prompts():
    # " the", " cat", " red" are one token each, everything else is spelled by the letter.
    spelled = [CONTENT] * 3 + [CONTENT, SUBJECT, CONTENT, CONTENT, CONTENT]
    assert kinds(LANGUAGE["gpt2"](), Prompt("see the cat in", "cat")) == spelled
    assert kinds(LANGUAGE["llama"](), Prompt("see the cat in", "cat")) == [BOS, *spelled]


def test_kinds_of_chat_prompts():
    """The template's own tokens before the text are `bos`, those after it `eos`."""
    subject = LANGUAGE["llama"]()
    got = kinds(subject, Prompt("see the cat", "cat", form="chat"))
    before, after = len("<>user\n") - 1, len("<>") - 1 + len("\n") + len("<>model\n") - 1
    assert got == [BOS] * before + [CONTENT] * 4 + [SUBJECT] + [EOS] * after
    (ids,) = subject.tokenise([Prompt("see the cat", form="chat")]).ids
    assert subject.tokenizer.decode(ids[0]) == "<start>user\nsee the cat<end>\n<start>model\n"


def test_a_subject_in_the_template_is_not_the_subject():
    got = kinds(LANGUAGE["qwen2"](), Prompt("a user", "user", form="chat"))
    assert got.count(SUBJECT) == len("user") and got.index(SUBJECT) > got.index(CONTENT)


def test_padding_is_marked_and_on_the_side_that_was_asked_for(subject):
    left, last = subject.tokenise(PROMPTS), right(subject).tokenise(PROMPTS)
    for i in range(len(PROMPTS)):
        ids = [t.ids[0][i][t.masks[0][i] == 1].tolist() for t in (left, last)]
        assert ids[0] == ids[1] == list(spell(subject.tokenizer, PROMPTS[i]).ids)
        for tokens in (left, last):
            assert torch.equal(tokens.kinds[i] == PAD, tokens.masks[0][i] == 0)
    assert left.kinds[3, 0] == PAD and left.kinds[3, -1] != PAD
    assert last.kinds[3, 0] != PAD and last.kinds[3, -1] == PAD


def test_padding_batch_and_order_change_nothing(subject):
    alone = torch.cat([subject.next_logits([p]) for p in PROMPTS])
    for other in (subject, right(subject)):
        torch.testing.assert_close(other.next_logits(PROMPTS), alone, **CLOSE)
        torch.testing.assert_close(other.next_logits(PROMPTS[::-1], batch=3).flip(0), alone, **CLOSE)


def test_logits_are_the_library_s(subject):
    """Of each prompt alone, with nothing but its ids."""
    for prompt in PROMPTS:
        ids = torch.tensor([spell(subject.tokenizer, prompt).ids])
        torch.testing.assert_close(subject.next_logits([prompt]), subject.model(ids).logits[:, -1], **CLOSE)


PAIRS = [
    (PROMPTS[0], " dog"), (PROMPTS[1], " and then the red cat"), (PROMPTS[2], "x"), (PROMPTS[0], " cat sun"),
]  # fmt: skip


def test_log_probs_are_those_of_a_plain_loop(subject):
    expected, counts = [], []
    for prompt, text in PAIRS:
        whole = list(spell(subject.tokenizer, prompt, text).ids)
        first = len(spell(subject.tokenizer, prompt).ids)
        total = 0.0
        for at in range(first, len(whole)):
            logits = subject.model(torch.tensor([whole[:at]])).logits[0, -1]
            total += float(logits.log_softmax(-1)[whole[at]])
        expected.append(total)
        counts.append(len(whole) - first)
    for other in (subject, right(subject)):
        for batch in (1, 3, 16):
            got = other.log_probs(PAIRS, batch=batch)
            torch.testing.assert_close(got.total, torch.tensor(expected), atol=1e-4, rtol=1e-5)
            assert got.tokens.tolist() == counts
            torch.testing.assert_close(got.mean, got.total / torch.tensor(counts))


def test_what_is_likely_in_each_place_is_what_a_plain_loop_reads(subject):
    every, ids, pair = [], [], []
    for number, (prompt, text) in enumerate(PAIRS):
        whole = list(spell(subject.tokenizer, prompt, text).ids)
        for at in range(len(spell(subject.tokenizer, prompt).ids), len(whole)):
            every.append(subject.model(torch.tensor([whole[:at]])).logits[0, -1].log_softmax(-1))
            ids.append(whole[at])
            pair.append(number)
    for other in (subject, right(subject)):
        for batch in (1, 3, 16):
            got = other.token_log_probs(PAIRS, batch=batch)
            torch.testing.assert_close(got.every, torch.stack(every), atol=1e-4, rtol=1e-5)
            assert got.ids.tolist() == ids and got.pair.tolist() == pair
            sums = torch.zeros(len(PAIRS)).index_add(0, got.pair, got.own)
            torch.testing.assert_close(sums, other.log_probs(PAIRS, batch=batch).total, atol=1e-4, rtol=1e-5)
    with pytest.raises(ValueError, match="no answer to read"):
        subject.token_log_probs([])


def test_probabilities_of_all_next_tokens_sum_to_one():
    subject = LANGUAGE["neox"]()
    vocabulary = [chr(c) for c in range(33, 127)]
    got = subject.log_probs([(Prompt("the"), c) for c in vocabulary], batch=50)
    logits = subject.next_logits([Prompt("the")])[0].log_softmax(-1)
    ids = [subject.tokenizer(c).input_ids[0] for c in vocabulary]
    torch.testing.assert_close(got.total, logits[ids], **CLOSE)
    assert 0 < float(got.total.exp().sum()) < 1


def test_a_token_across_the_boundary_counts_as_the_continuation_s():
    subject = LANGUAGE["gpt2"]()
    # " c" + "at" is spelled as the one token " cat": nothing of the prompt's last two characters is left before it.
    spelled = spell(subject.tokenizer, Prompt("a c"), "at")
    assert len(spelled.ids) == 2 and spelled.prompt == 1
    assert int(subject.log_probs([(Prompt("a c"), "at")]).tokens) == 1


def test_gradients_reach_what_a_tap_puts_in():
    subject = LANGUAGE["gpt2"]()
    site = subject.sites("resid")[0]
    pushed = torch.zeros(16, requires_grad=True)
    with tap(subject, {site: lambda x, moment: x + pushed}):
        subject.log_probs(PAIRS[:2]).total.sum().backward()
    assert pushed.grad is not None
    step = 1e-2 * pushed.grad / pushed.grad.norm()
    ends = []
    for sign in (1, -1):
        with tap(subject, {site: lambda x, moment, sign=sign: x + sign * step}):
            ends.append(float(subject.log_probs(PAIRS[:2]).total.sum()))
    assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(float(pushed.grad.norm()), rel=0.02)


@pytest.mark.slow
def test_captured_rows_do_not_know_what_stood_beside_them(subject):
    roles = ["resid", "attn_out", "mlp_hidden"]
    acts, other = (capture(s, PROMPTS, roles=roles) for s in (subject, right(subject)))
    for site in acts.sites:
        block, again = acts.read(site), other.read(site)
        torch.testing.assert_close(block.x, again.x, **CLOSE)
        for name, column in block.columns.items():
            assert torch.equal(column, again.columns[name]), name
        lengths = [len(spell(subject.tokenizer, p).ids) for p in PROMPTS]
        assert block.columns["token"].tolist() == [t for n in lengths for t in range(n)]
        assert "pad" not in {TOKEN_KINDS[k] for k in block.columns["kind"].tolist()}
        for i, prompt in enumerate(PROMPTS):
            alone = capture(subject, [prompt], sites=[site]).read(site).x
            torch.testing.assert_close(block.x[block.columns["prompt"] == i], alone, **CLOSE)
    named = capture(subject, PROMPTS, roles=["resid"], kinds=["subject"])
    assert named.read(named.sites[0]).columns["prompt"].unique().tolist() == [0, 1]


def test_prompts_of_a_capture_come_back_with_form_and_answers(tmp_path):
    asked = [Prompt("the cat", "cat", "cat", "chat", ("purrs", "sleeps"), ("barks",)), Prompt("the dog")]
    acts = capture(LANGUAGE["llama"](), asked, roles=["resid"], folder=tmp_path / "acts")
    assert acts.prompts == tuple(asked)


def test_encoding_in_batches_gives_the_same(subject):
    one, many = subject.encode(PROMPTS, batch=1), subject.encode(PROMPTS)
    torch.testing.assert_close(one.states, many.states, **CLOSE)
    assert torch.equal(one.kinds, many.kinds)


def test_what_cannot_be_read_is_refused():
    subject = LANGUAGE["gpt2"]()
    wrongs = [
        (Prompt("the cat", form="chat"), ValueError, "no chat template.*form 'plain'"),
        (Prompt(""), ValueError, "has no token to answer after"),
        (Prompt("a" * (LM_LENGTH + 1)), ValueError, rf"has {LM_LENGTH + 1} tokens, and .* at most {LM_LENGTH}"),
        (Prompt("the cat", "dog"), ValueError, "the subject 'dog' is not in the text"),
    ]
    for prompt, error, said in wrongs:
        with pytest.raises(error, match=said):
            subject.tokenise([prompt])
    with pytest.raises(ValueError, match=r"the continuation '' of 'the cat' has no token"):
        subject.log_probs([(Prompt("the cat"), "")])
    with pytest.raises(ValueError, match="form is 'chatty'; it is one of plain, chat"):
        Prompt("the cat", form="chatty")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="write Prompt"):
        subject.next_logits(["the cat"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(UnknownName, match="side of padding 'middle'"):
        CausalLMSubject("m", subject.pipeline, padding="middle")  # pyright: ignore[reportArgumentType]

    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match="Slow does not say which characters a token spells"):
        CausalLMSubject("m", LanguageModel(subject.model, Slow()))
