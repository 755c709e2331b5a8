"""Laws that every attack keeps, on every family: a new line in ATTACKS is tested the day it is added."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.attacks import ATTACKS, Attack, Budget
from concept_probe.erasers import Blocklist, Safree, Sld, Uce
from concept_probe.families import Subject
from concept_probe.testing.concepts import tiny_concept, tiny_recogniser
from concept_probe.testing.models.diffusion import DIFFUSION
from concept_probe.types import Sampling

SAMPLING = Sampling(steps=2, guidance=2.0, batch=8)
BUDGET = Budget(queries=12, gradient_steps=3, examples=2)
CONCEPT = tiny_concept()
ERASERS = {
    "guard": Blocklist(),
    "guidance": Sld(warmup=0.0, threshold=1.0),
    "words": Safree(alpha=0.0, tokens="suffix"),
    "edit": Uce(),
}
every = pytest.mark.parametrize("name", [n for n, attack in ATTACKS.items() if attack.on != "texts"])
families = pytest.mark.parametrize("family", DIFFUSION)


def made(name: str, sampling: Sampling = SAMPLING) -> Attack:
    return ATTACKS[name](tiny_recogniser(), sampling, **ATTACKS[name].tiny(CONCEPT))


def run(name: str, subject: Subject, budget: Budget = BUDGET):
    return made(name)(subject, CONCEPT, budget)


def shape(attempt):
    """All of an attempt but the seconds it took."""
    spent = replace(attempt.spent, seconds=0.0)
    return spent, attempt.curve, attempt.trials, attempt.control, attempt.pictures


@families
@every
def test_same_seed_same_result_and_the_weights_come_back(name, family):
    subject = DIFFUSION[family]()
    before = subject.weight_hash()
    flags = [p.requires_grad for module in subject.components.values() for p in module.parameters()]
    first = run(name, subject)
    assert subject.weight_hash() == before
    assert flags == [p.requires_grad for module in subject.components.values() for p in module.parameters()]
    assert shape(run(name, subject)) == shape(first)
    assert first.attack == name and first.concept == CONCEPT.name and first.curve and first.control is not None


@families
@every
def test_spends_no_more_than_its_budget_and_counts_what_it_spends(name, family, monkeypatch):
    subject = DIFFUSION[family]()
    made = []
    generate = subject.generate
    monkeypatch.setattr(subject, "generate", lambda q, s=SAMPLING: (made.append(len(q)), generate(q, s))[1])
    for budget in (BUDGET, Budget(queries=1, gradient_steps=2, examples=1), Budget(queries=5, gradient_steps=0)):
        made.clear()
        spent = run(name, subject, budget).spent
        assert sum(made) == spent.queries <= budget.queries
        assert spent.gradient_steps <= budget.gradient_steps and spent.examples <= budget.examples


@every
def test_nothing_to_spend_is_nothing_done(name):
    subject = DIFFUSION["sd"]()
    attempt = run(name, subject, Budget(queries=0, gradient_steps=0, examples=0))
    assert attempt.curve == () and attempt.success is None and attempt.control is None
    assert attempt.spent.queries == attempt.spent.gradient_steps == 0


@every
def test_no_steps_is_the_baseline(name):
    if not run(name, DIFFUSION["sd"]()).spent.gradient_steps:
        pytest.skip("this attack makes no gradient steps")
    attempt = run(name, DIFFUSION["sd"](), Budget(queries=8, gradient_steps=0, examples=2))
    assert [x for x, _ in attempt.curve] == [0]


@every
def test_time_runs_out(name):
    attempt = run(name, DIFFUSION["sd"](), Budget(queries=12, gradient_steps=1000, examples=2, seconds=0.0))
    assert attempt.spent.gradient_steps == 0


@pytest.mark.parametrize("eraser", ERASERS)
@families
@every
def test_runs_with_a_guard_and_with_an_edit_on(name, family, eraser):
    subject = DIFFUSION[family]()
    erasure = ERASERS[eraser](subject, CONCEPT)
    before = subject.weight_hash()
    with erasure.on(subject):
        erased = subject.weight_hash()
        attempt = run(name, subject)
        assert subject.weight_hash() == erased
    assert subject.weight_hash() == before
    assert attempt.curve


@every
def test_weights_and_hooks_are_clean_after_a_failure(name, monkeypatch):
    subject = DIFFUSION["sd"]()
    before = subject.weight_hash()
    calls = []
    generate = subject.generate

    def failing(queries, sampling=SAMPLING):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("stopped on purpose")
        return generate(queries, sampling)

    budget = replace(BUDGET, queries=24)
    monkeypatch.setattr(subject, "generate", failing)
    with pytest.raises(RuntimeError, match="on purpose"):
        made(name, replace(SAMPLING, batch=2))(subject, CONCEPT, budget)
    assert subject.weight_hash() == before
    hooks = [
        h for m in subject.components.values() for s in m.modules() for h in (*s._forward_hooks, *s._forward_pre_hooks)
    ]
    assert hooks == []
    assert not any(p.requires_grad for module in subject.components.values() for p in module.parameters())
    assert torch.is_grad_enabled()
