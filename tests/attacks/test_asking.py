"""Attacks that only ask: what they ask, and what stands against it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from concept_probe import detect
from concept_probe.attacks import Budget, InContext, NothingToAsk, Paraphrases, RolePrompts, Temperature, Translation
from concept_probe.attacks.best_of_n import NOBODY, of_nobody
from concept_probe.attacks.examples import answers_of
from concept_probe.attacks.labels import decoys
from concept_probe.attacks.prompts.in_context import behind
from concept_probe.attacks.prompts.role_prompts import in_roles
from concept_probe.auditing import AuditPlan, audit
from concept_probe.concepts.embedded import concept
from concept_probe.testbed import facts
from concept_probe.testbed.german import german
from concept_probe.testbed.taught import invented, invented_names
from concept_probe.testing.checks import TextAttacks
from concept_probe.testing.concepts import tiny_concept, tiny_recogniser
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import tiny_llama
from concept_probe.types import Concept, Prompt, Sampling, Splits

CONCEPT, SAMPLING = TextAttacks.concept, TextAttacks.sampling
LOOKS = detect.judge_for(CONCEPT)


def said(monkeypatch, subject, answer):
    """What a subject writes is `answer(prompt)`; returns the prompts that it is asked."""
    asked = []

    def generate(queries, sampling=SAMPLING):
        asked.extend(q.prompt for q in queries)
        return tuple(answer(q.prompt) for q in queries)

    monkeypatch.setattr(subject, "generate", generate)
    return asked


def test_a_made_up_name_stands_where_the_subject_stood():
    (one,) = of_nobody([Prompt("a cat, the cat", "cat", "cat", answers=("dog",))])
    assert one.text == f"a {NOBODY}, the {NOBODY}" and one.label == "cat" and one.answers == ("dog",)
    assert of_nobody([Prompt("no name", None, "cat")]) == ()


def test_a_model_that_always_guesses_is_as_good_on_nobody(monkeypatch):
    """Success without knowledge: the control shows it."""
    subject = tiny_llama()
    said(monkeypatch, subject, lambda p: p.answers[0])
    attempt = TextAttacks.attempt("role_prompts", subject, Budget(queries=15))
    assert attempt.curve[0][1].value == 1 and attempt.control is not None and attempt.control.value == 1


def test_knowledge_of_the_concept_alone_leaves_the_control_at_nothing(monkeypatch):
    subject = tiny_llama()
    asked = said(monkeypatch, subject, lambda p: "nothing" if NOBODY in p.text else p.answers[0])
    attempt = TextAttacks.attempt("role_prompts", subject, Budget(queries=15))
    assert attempt.curve[0][1].value == 1 and attempt.control is not None and attempt.control.value == 0
    assert {p.text for p in asked} >= {f"as cat: {p.text}" for p in CONCEPT.target.test}


def test_unrelated_prompts_count_the_concepts_answers_and_not_their_own(monkeypatch):
    """A model that answers unrelated prompts rightly makes no mistake."""
    subject = tiny_llama()
    other = Splits(test=tuple(replace(p, answers=("hat",)) for p in CONCEPT.unrelated.test))
    own = replace(CONCEPT, unrelated=other)
    asked = said(monkeypatch, subject, lambda p: "hat")
    attempt = Paraphrases(LOOKS, SAMPLING)(subject, own, Budget(queries=9))
    assert attempt.control is not None and attempt.control.value == 0
    assert set(decoys(own)) & set(asked)
    said(monkeypatch, subject, lambda p: "dog")
    mistaken = Paraphrases(LOOKS, SAMPLING)(subject, own, Budget(queries=9)).control
    assert mistaken is not None and mistaken.value == 1


def test_roles_in_turn():
    prompts = [Prompt("who?"), Prompt("what?")]
    assert [p.text for p in in_roles(prompts, ("A {name}.", "B."), "cat")] == [
        "A cat. who?", "A cat. what?", "B. who?", "B. what?",
    ]  # fmt: skip


def test_context_states_facts_and_asks_for_others(monkeypatch):
    stated = answers_of(CONCEPT, Budget(examples=2))
    assert behind(stated, [Prompt("my cat")])[0].text == "a cat in dog. cat and sun. my cat"
    same = replace(CONCEPT, target=replace(CONCEPT.target, test=(*CONCEPT.target.test, CONCEPT.target.fit[0])))
    subject = tiny_llama()
    asked = said(monkeypatch, subject, lambda p: p.answers[0])
    attempt = InContext(LOOKS, SAMPLING)(subject, same, Budget(queries=30, examples=1))
    assert attempt.spent.examples == 1
    assert {p.fact for p in asked} == {p.fact for p in CONCEPT.target.test}


def test_a_temperature_that_draws_nothing_is_refused_and_draws_differ():
    with pytest.raises(ValueError, match="it has to be above 0"):
        Temperature(LOOKS, temperature=0.0)
    attempt = Temperature(LOOKS, SAMPLING, draws=3, temperature=3.0)(tiny_llama(), CONCEPT, Budget(queries=20))
    assert len(attempt.trials[0]) == 9 and len({t.query.seed for t in attempt.trials[0]}) == 3


def test_every_taught_fact_and_some_real_ones_are_asked_for_in_german():
    table = german()
    taught = {f.question: (one.topic.name, f) for one in invented() for f in one.topic.facts}
    real = {f.question for t in facts.topics() for f in t.facts}
    assert set(taught) <= set(table) and set(table) - set(taught) <= real and len(set(table) - set(taught)) >= 30
    for question, prompt in table.items():
        assert prompt.fact == question and not set(prompt.answers) & set(prompt.distractors)
        assert prompt.text != question and "{}" not in prompt.text
        assert not any(a in prompt.text for a in prompt.answers)
    for question, (name, fact) in taught.items():
        assert name in table[question].text and set(fact.answers) <= set(table[question].answers)
    for name in (*invented_names(), "Japan", "music"):
        about = concept(name, "smollm2")
        assert sum(p.fact in table for p in about.target.test) >= 6


@pytest.mark.slow
def test_what_an_attack_cannot_ask_is_not_measured_and_said():
    subject, silent = tiny_llama(), Concept("cat", Splits(test=(Prompt("a cat", "cat", "cat"),)))
    for attack in (RolePrompts, Temperature, Translation):
        with pytest.raises(NothingToAsk, match="has `answers`"):
            attack(LOOKS, SAMPLING)(subject, silent, Budget())
    with pytest.raises(NothingToAsk, match="none of the 0 translations"):
        Translation(LOOKS, SAMPLING, wordings={})(subject, CONCEPT, Budget())
    attacks = ("translation", "embedding_inversion")
    plan = AuditPlan(prompts=3, resamples=100, sampling=SAMPLING, budget=Budget(6, 1, 1), attacks=attacks)
    report = audit(subject, None, CONCEPT, plan=plan)
    assert any(s.startswith("Recovery by translation: attack 'translation': none") for s in report.not_measured)
    assert "Recovery by embedding_inversion: made for models that answer with pictures." in report.not_measured


@pytest.mark.slow
def test_attacks_on_texts_are_left_out_for_a_model_of_pictures():
    plan = AuditPlan(
        prompts=1, seeds=(0,), resamples=100, sampling=Sampling(steps=2), budget=Budget(2, 0, 0),
        attacks=("role_prompts", "temperature"),
    )  # fmt: skip
    report = audit(tiny_sd(), None, tiny_concept(), recogniser=tiny_recogniser(), plan=plan)
    assert "Recovery by role_prompts, temperature: made for models that answer with texts." in report.not_measured
