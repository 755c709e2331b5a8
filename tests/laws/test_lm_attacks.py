"""Laws that every attack on texts keeps, on every layout of language models: a new line in ATTACKS is tested at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.attacks import Attempt, Budget
from concept_probe.erasers import GradAscent
from concept_probe.families import CausalLMSubject
from concept_probe.testing.models.language import LANGUAGE
from tests.laws.lm_attack_cases import CONCEPT, NAMES, SAMPLING, made

BUDGET = Budget(queries=15, gradient_steps=2, examples=1)
every = pytest.mark.parametrize("name", NAMES)
families = pytest.mark.parametrize("family", LANGUAGE)


def run(name: str, subject: CausalLMSubject, budget: Budget = BUDGET) -> Attempt:
    return made(name)(subject, CONCEPT, budget)


def shape(attempt: Attempt):
    """All of an attempt but the seconds it took."""
    return replace(attempt.spent, seconds=0.0), attempt.curve, attempt.trials, attempt.control


def held(subject: CausalLMSubject):
    every = list(subject.model.parameters())
    return [p.detach().clone() for p in every], [(p.data_ptr(), p.requires_grad, p.grad is None) for p in every]


def same(first, second) -> bool:
    return first[1] == second[1] and all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))


@families
@every
def test_same_seed_same_result_and_every_byte_comes_back(name, family):
    subject = LANGUAGE[family]()
    before = held(subject)
    first = run(name, subject)
    assert same(before, held(subject))
    assert shape(run(name, subject)) == shape(first)
    assert first.attack == name and first.concept == CONCEPT.name and first.curve and first.control is not None


@families
@every
def test_it_runs_with_an_edit_on_and_leaves_it_as_it_was(name, family):
    subject = LANGUAGE[family]()
    edit = GradAscent(steps=3, rate=0.05)(subject, CONCEPT)
    with edit.on(subject):
        edited = held(subject)
        assert run(name, subject).curve
        assert same(edited, held(subject))


@every
def test_spends_no_more_than_its_budget_and_counts_what_it_spends(name, monkeypatch):
    subject = LANGUAGE["llama"]()
    made_texts = []
    generate = subject.generate
    monkeypatch.setattr(subject, "generate", lambda q, s=SAMPLING: (made_texts.append(len(q)), generate(q, s))[1])
    for budget in (BUDGET, Budget(1, 2, 1), Budget(5, 0, 1), Budget(0, 0, 1)):
        made_texts.clear()
        spent = run(name, subject, budget).spent
        assert sum(made_texts) == spent.queries <= budget.queries
        assert spent.gradient_steps <= budget.gradient_steps and spent.examples <= budget.examples


@every
def test_nothing_to_spend_is_nothing_done(name):
    attempt = run(name, LANGUAGE["llama"](), Budget(0, 0, 0))
    assert attempt.curve == () and attempt.success is None and attempt.control is None
    assert attempt.spent.queries == attempt.spent.gradient_steps == 0


@every
def test_batch_size_changes_nothing(name):
    subject = LANGUAGE["gpt2"]()
    first = run(name, subject)
    other = replace(made(name), sampling=replace(SAMPLING, batch=16))(subject, CONCEPT, BUDGET)
    assert [[t.seen for t in part] for part in other.trials] == [[t.seen for t in part] for part in first.trials]


@every
def test_weights_and_hooks_are_clean_after_a_failure(name, monkeypatch):
    subject = LANGUAGE["llama"]()
    before = held(subject)
    calls = []
    generate = subject.generate

    def failing(queries, sampling=SAMPLING):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("stopped on purpose")
        return generate(queries, sampling)

    monkeypatch.setattr(subject, "generate", failing)
    with pytest.raises(RuntimeError, match="on purpose"):
        replace(made(name), sampling=replace(SAMPLING, batch=1))(subject, CONCEPT, replace(BUDGET, queries=24))
    assert same(before, held(subject))
    hooks = [h for m in subject.model.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]
    assert hooks == [] and torch.is_grad_enabled()
