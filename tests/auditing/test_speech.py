"""Perplexity, likeness to earlier answers, and depth: each against numbers worked out by hand or by a plain loop."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import astuple, replace

import pytest
import torch

from concept_probe import detect
from concept_probe.auditing import AuditPlan
from concept_probe.auditing.arm import Arm
from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence.depth import DEPTH, DEPTH_OF_ERASURE, as_large, first_token, share_lost
from concept_probe.auditing.evidence.fluency import FLUENCY, in_another_order, spoilt
from concept_probe.auditing.gold_answers import Surprisal, surprisal, surprisals, text_with_answer
from concept_probe.auditing.observe import Observation
from concept_probe.auditing.places import Places
from concept_probe.auditing.questions import Questions
from concept_probe.auditing.sides import Sides
from concept_probe.erasers import Edit, Shift
from concept_probe.evaluation.thinning import most_varied, most_varied_facts
from concept_probe.testing.models.language import LANGUAGE, tiny_llama
from concept_probe.types import Concept, Prompt, Sampling, Splits


def asked(text: str, answer: str, fact: str | None = None, label: str = "sun") -> Prompt:
    return Prompt(text, None, label, answers=(answer,), distractors=("x",), fact=fact)


KEPT = (asked("the red dog", "sun", "one"), asked("a dog is", "sun", "one"), asked("my sun", "red"))
CONCEPT = Concept(
    "cat",
    Splits(test=(asked("a cat in", "the", label="cat"), asked("see the cat", "dog", label="cat"))),
    unrelated=Splits(test=KEPT),
)


PLAN = AuditPlan(seeds=(0,), sampling=Sampling(tokens=2, batch=8), fit_images=4, resamples=400)
ARM = Arm("before", tiny_llama(), None, "")
QUESTIONS = Questions.of(PLAN, CONCEPT, "cat", detect.judge_for(CONCEPT), "texts")


def context(before: Observation, after: Observation, control: Observation | None = None, *, arms=None) -> Context:
    return Context(PLAN, QUESTIONS, arms or Sides(ARM, ARM), Sides(before, after, control), Places((), (), ()))


@pytest.mark.parametrize("family", LANGUAGE)
def test_surprise_is_that_of_every_token_after_the_first_word(family):
    subject, text = LANGUAGE[family](), "see the red dog and sun"
    (nats,), (tokens,) = astuple(surprisal(subject, [text]))
    ids = torch.tensor(subject.tokenizer(text)["input_ids"])
    skipped = len(subject.tokenizer("see")["input_ids"])
    with torch.no_grad():
        said = subject.model(ids[None]).logits[0].double().log_softmax(-1)
    loop = -sum(float(said[i - 1, ids[i]]) for i in range(skipped, len(ids)))
    assert float(nats) == pytest.approx(loop, rel=1e-5) and int(tokens) == len(ids) - skipped


def test_texts_to_be_kept_are_prompts_with_their_answers():
    subject = tiny_llama()
    read = surprisals(subject, QUESTIONS)["unrelated"]
    again = surprisal(subject, ["the red dog sun", "a dog is sun", "my sun red"])
    assert torch.equal(read.nats, again.nats) and torch.equal(read.tokens, again.tokens)
    assert text_with_answer(Prompt("who is", form="chat", answers=("he",))) == "who is"
    assert (
        sorted(in_another_order("a b c d e").split()) == list("abcde") and in_another_order("a b c d e") != "a b c d e"
    )
    assert in_another_order("a b c d e") == in_another_order("a b c d e")


def of(nats: list[float]) -> Observation:
    x = torch.tensor(nats, dtype=torch.float64)
    count = torch.tensor([2.0, 4.0, 4.0], dtype=torch.float64)
    return Observation(surprisals={"unrelated": Surprisal(x, count)})


def test_perplexity_is_worked_out_over_facts_and_an_untouched_model_stands_still():
    """Wordings of fact `one` are averaged: (1 + 3) / 2 nats of 3 tokens, and 5 nats of 4; (2 + 5) / 7 in all."""
    (found,) = FLUENCY(context(of([1, 3, 5]), of([2, 6, 10]))).findings
    assert found.before == pytest.approx(math.e) and found.after == pytest.approx(math.e**2)
    wrong = ["the red dog x", "a dog is x", "my sun x"]
    assert spoilt(KEPT) == (wrong, "before, with a wrong answer")
    assert spoilt([Prompt("a b c", answers=("d",))])[0] == [in_another_order("a b c d")]
    nats, tokens = astuple(surprisal(ARM.subject, wrong))  # pyright: ignore[reportArgumentType]
    mixed = ((nats[0] + nats[1]) / 2 + nats[2]) / ((tokens[0] + tokens[1]) / 2 + tokens[2])
    assert found.control == pytest.approx(math.exp(mixed)) and "wrong answer" in found.control_name
    assert found.n == 2 and found.low <= found.after <= found.high and found.better == "lower"
    assert found.low == pytest.approx(math.exp(4 / 3), rel=0.2)  # the fact of 4 nats in 3 tokens alone
    assert found.note == "2.72 times that before"
    (with_twin,) = FLUENCY(context(of([1, 3, 5]), of([1, 3, 5]), of([0, 0, 7]))).findings
    assert with_twin.control == pytest.approx(math.e) and with_twin.control_name == "never-taught twin"


def test_what_is_written_is_compared_with_what_was_written_before():
    before = Observation(texts={"target": (("one red dog",), ("the sun",))})
    after = Observation(texts={"target": (("one dog",), ("nothing",))})
    found = {f.metric.split()[0]: f for f in FLUENCY(context(before, after)).findings}
    rouge, bleu = found["ROUGE-L"], found["BLEU"]
    assert rouge.before == bleu.before == 1 and rouge.n == 2 and rouge.better == "lower"
    assert rouge.after == pytest.approx(2 * 2 / 5 / 2)
    one = (2 / 2 * 1 / 2 * 1 * 1) ** 0.25 * math.exp(1 - 3 / 2)
    assert bleu.after == pytest.approx(one / 2) and rouge.control == 0
    assert rouge.low < rouge.after < rouge.high and rouge.control_name == "texts before for another prompt"
    same = FLUENCY(context(before, before, after)).findings
    assert [f.after for f in same] == [1, 1] and same[0].control == pytest.approx(0.4)


def last_mlp(subject, size: float) -> Edit:
    """A change of the last block's down projection alone."""
    site = subject.sites("mlp_value")[-1]
    weight = subject.parameter(site)
    change = size * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    where = f"{site.component}/{site.path}:weight"
    return Edit("shift", "cat", {where: Shift(change)}, subject.weight_hash())


@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_depth_is_nothing_below_the_change_and_the_erased_model_above_it(family):
    subject = LANGUAGE[family]()
    edit = last_mlp(subject, 1.0)
    prompts = CONCEPT.target.test
    whole = first_token(subject, prompts)
    ids = [subject.spelled_after(p, " " + p.answers[0])[0] for p in prompts]
    said = subject.next_logits(prompts).detach().double().softmax(-1)
    torch.testing.assert_close(whole, torch.stack([row[i] for row, i in zip(said, ids, strict=True)]))
    with edit.on(subject):
        erased = first_token(subject, prompts)
    weights = subject.weight_hash()
    arms = Sides(Arm("before", subject, None, weights), Arm("after", subject, edit, ""))
    evidence = DEPTH_OF_ERASURE(context(Observation(), Observation(), arms=arms))
    (found,), (trace,) = evidence.findings, evidence.traces
    assert trace.rows == tuple(map(str, subject.sites("resid")))
    assert trace.before[0][0] == trace.after[0][0] == trace.control[0][0] == pytest.approx(float(whole.mean()))
    assert trace.after[-1][0] == pytest.approx(float(erased.mean()), rel=1e-5)
    lost = (1 - erased / whole).clamp(0, 1) / len(trace.rows)
    assert found.metric == DEPTH.name and found.after == pytest.approx(float(lost.mean()), rel=1e-5)
    assert found.control_name == "a random change as large" and found.control is not None
    assert found.n == 2 and evidence.indices == () and subject.weight_hash() == weights


def test_depth_of_a_model_that_nobody_erased_is_nothing_and_the_twin_is_its_own_control():
    subject, twin = tiny_llama(), tiny_llama(seed=4)
    weights = subject.weight_hash()
    mine, other = Arm("before", subject, None, weights), Arm("control", twin, None, "")
    nothing, same = Observation(), Observation()
    (found,) = DEPTH_OF_ERASURE(context(nothing, nothing, same, arms=Sides(mine, mine, other))).findings
    assert found.after == 0 and (found.control or 0) > 0 and found.note == "no block's activations lose half of it"
    arms = Sides(mine, replace(other, name="after"), other)
    (gone,) = DEPTH_OF_ERASURE(context(nothing, same, same, arms=arms)).findings
    assert gone.after == gone.control and "never-taught twin" in gone.control_name


def test_shares_and_random_changes():
    start, patched = torch.tensor([0.5, 0.2]), torch.tensor([[0.5, 0.25], [0.4, 0.05]])
    torch.testing.assert_close(share_lost(start, patched), torch.tensor([[0.0, 0.5], [0.0, 0.75]]))
    whole, erased = (torch.zeros(3, 8),), (torch.diag(torch.tensor([1.0, 2.0, 0.0]), 5)[:3],)
    (out,) = as_large(whole, erased, torch.Generator().manual_seed(0))
    torch.testing.assert_close(out.norm(dim=-1), erased[0].norm(dim=-1))


def test_wordings_of_a_fact_are_asked_only_once_every_fact_is():
    prompts = [asked(f"{how} fact {i} is", "sun", str(i)) for how in ("one", "two", "three") for i in range(4)]
    assert {p.fact for p in most_varied_facts(prompts, 4)} == set("0123")
    counts = Counter(p.fact for p in most_varied_facts(prompts, 9))
    assert sorted(counts.values()) == [2, 2, 2, 3] and len(most_varied_facts(prompts, 99)) == 12
    bare = [asked(f"{i} is", "sun") for i in range(9)]
    assert most_varied_facts(bare, 4) == most_varied(bare, 4)
