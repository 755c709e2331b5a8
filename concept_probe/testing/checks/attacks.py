"""Laws that every attack keeps, on what makes pictures and on what writes texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from concept_probe import detect
from concept_probe.attacks import ATTACKS, Attempt, Budget
from concept_probe.erasers import Blocklist, GradAscent, Safree, Sld, Uce
from concept_probe.erasers.eraser import TINY_SAMPLING, Eraser
from concept_probe.families import Subject
from concept_probe.testing.concepts import tiny_concept, tiny_quiz, tiny_recogniser
from concept_probe.testing.law import Laws, about, once
from concept_probe.testing.models import TINY_MODELS
from concept_probe.testing.reading import everything, hooks_on, states_of_parameters
from concept_probe.types import Concept, Judge, Sampling


class AttackLaws(Laws):
    """What a subclass adds is who is attacked, about what, and how far."""

    registry = ATTACKS
    concept: ClassVar[Concept]
    judge: ClassVar[Judge]
    sampling: ClassVar[Sampling]
    budget: ClassVar[Budget]
    small: ClassVar[tuple[Budget, ...]]
    """Budgets that hardly suffice."""
    erased: ClassVar[tuple[Eraser[Any, Any], ...]]
    """What is on while the attack runs."""

    @classmethod
    def attempt(cls, name: str, subject: Subject, budget: Budget | None = None, batch: int | None = None) -> Attempt:
        sampling = cls.sampling if batch is None else replace(cls.sampling, batch=batch)
        attack = ATTACKS[name](cls.judge, sampling, **ATTACKS[name].tiny(cls.concept))
        return attack(subject, cls.concept, budget or cls.budget)

    @pytest.fixture
    def subject(self, model: str) -> Subject:
        """A fresh one: what an attack leaves behind would be met by the next."""
        return TINY_MODELS[model]()

    def test_same_seed_same_result_and_every_byte_comes_back(self, subject: Subject, name: str) -> None:
        weights, parameters = everything(subject), states_of_parameters(subject)
        first = self.attempt(name, subject)
        assert states_of_parameters(subject) == parameters
        assert all(torch.equal(x, weights[key]) for key, x in everything(subject).items())
        assert without_time(self.attempt(name, subject)) == without_time(first)
        assert first.attack == name and first.concept == self.concept.name and first.curve and first.control is not None

    def test_spends_no_more_than_its_budget_and_counts_what_it_spends(
        self, subject: Any, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[int] = []
        generate = subject.generate
        monkeypatch.setattr(
            subject, "generate", lambda q, s=self.sampling: (made.append(len(q)), generate(q, s))[1]
        )  # fmt: skip
        for budget in (self.budget, *self.small):
            made.clear()
            spent = self.attempt(name, subject, budget).spent
            assert sum(made) == spent.queries <= budget.queries
            assert spent.gradient_steps <= budget.gradient_steps and spent.examples <= budget.examples

    @once
    def test_nothing_to_spend_is_nothing_done(self, subject: Subject, name: str) -> None:
        attempt = self.attempt(name, subject, Budget(queries=0, gradient_steps=0, examples=0))
        assert attempt.curve == () and attempt.success is None and attempt.control is None
        assert attempt.spent.queries == attempt.spent.gradient_steps == 0

    @once
    def test_no_steps_is_the_baseline(self, subject: Subject, name: str) -> None:
        if self.attempt(name, subject).spent.gradient_steps:
            attempt = self.attempt(name, subject, replace(self.budget, gradient_steps=0))
            assert [x for x, _ in attempt.curve] == [0]

    @once
    def test_time_runs_out(self, subject: Subject, name: str) -> None:
        attempt = self.attempt(name, subject, replace(self.budget, gradient_steps=1000, seconds=0.0))
        assert attempt.spent.gradient_steps == 0

    def test_it_runs_with_an_erasure_on_and_leaves_it_as_it_was(self, subject: Subject, name: str) -> None:
        before = subject.weight_hash(whole=True)
        for eraser in self.erased:
            with eraser(subject, self.concept).on(subject):
                erased = everything(subject)
                assert self.attempt(name, subject).curve
                assert all(torch.equal(x, erased[key]) for key, x in everything(subject).items())
            assert subject.weight_hash(whole=True) == before

    @once
    def test_weights_and_hooks_are_clean_after_a_failure(
        self, subject: Any, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before, parameters = everything(subject), states_of_parameters(subject)
        calls: list[int] = []
        generate = subject.generate

        def failing(queries: Any, sampling: Sampling = self.sampling) -> Any:
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("stopped on purpose")
            return generate(queries, sampling)

        monkeypatch.setattr(subject, "generate", failing)
        with pytest.raises(RuntimeError, match="on purpose"):
            self.attempt(name, subject, replace(self.budget, queries=24), batch=1)
        assert all(torch.equal(x, before[key]) for key, x in everything(subject).items())
        assert states_of_parameters(subject) == parameters and hooks_on(subject) == []
        assert torch.is_grad_enabled()

    @once
    @about(lambda attack: attack.on != "both")
    def test_it_refuses_a_subject_that_answers_otherwise(self, name: str, model: str) -> None:
        other = TINY_MODELS["gpt2" if self.answers == "pictures" else "sd"]()
        with pytest.raises(TypeError, match=f"{name!r} is on models that answer with {self.answers}"):
            self.attempt(name, other)

    @once
    @about(lambda attack: attack.needs_examples)
    def test_it_says_that_it_needs_examples(self, subject: Subject, name: str) -> None:
        bare = replace(self.concept, examples=None, target=replace(self.concept.target, fit=()))
        with pytest.raises(ValueError, match=f"attack {name!r} needs "):
            ATTACKS[name](self.judge, self.sampling, **ATTACKS[name].tiny(self.concept))(subject, bare, self.budget)


class PictureAttacks(AttackLaws):
    answers = "pictures"
    concept = tiny_concept()
    judge = tiny_recogniser()
    sampling = TINY_SAMPLING
    budget = Budget(queries=12, gradient_steps=3, examples=2)
    small = (Budget(queries=1, gradient_steps=2, examples=1), Budget(queries=5, gradient_steps=0))
    erased = (Blocklist(), Sld(warmup=0.0, threshold=1.0), Safree(alpha=0.0, tokens="suffix"), Uce())


class TextAttacks(AttackLaws):
    answers = "texts"
    concept = tiny_quiz()
    judge = detect.judge_for(concept)
    sampling = Sampling(tokens=2, batch=4)
    budget = Budget(queries=15, gradient_steps=2, examples=1)
    small = (Budget(1, 2, 1), Budget(5, 0, 1), Budget(0, 0, 1))
    erased = (GradAscent(steps=3, rate=0.05),)

    @once
    def test_batch_size_changes_nothing(self, subject: Subject, name: str) -> None:
        first, other = self.attempt(name, subject), self.attempt(name, subject, batch=16)
        assert [[t.seen for t in part] for part in other.trials] == [[t.seen for t in part] for part in first.trials]


def without_time(attempt: Attempt) -> tuple[Any, ...]:
    """All of an attempt but the seconds it took."""
    spent = replace(attempt.spent, seconds=0.0)
    return spent, attempt.curve, attempt.trials, attempt.control, attempt.pictures
