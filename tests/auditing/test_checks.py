"""What an audit refuses before it makes one picture."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from concept_probe.auditing import UsedPrompts, audit
from concept_probe.auditing.checks import refuse_used
from concept_probe.testing.concepts import tiny_concept, tiny_recogniser
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt, Splits


def test_test_prompts_that_were_fitted_on_are_named():
    concept = tiny_concept()
    leaky = replace(
        concept, target=replace(concept.target, test=(*concept.target.test, Prompt("A  Cat", "Cat", "cat")))
    )
    with pytest.raises(UsedPrompts, match=r"1 test prompts.*'a cat' \(target, fit\)"):
        audit(tiny_sd(), None, leaky, recogniser=tiny_recogniser())


def test_the_same_sentence_in_another_kind_counts_too():
    concept = tiny_concept()
    leaky = replace(concept, unrelated=replace(concept.unrelated, select=concept.neighbours.test))
    with pytest.raises(UsedPrompts, match="3 test prompts"):
        refuse_used(leaky, None)


def test_anchors_are_told_to_the_eraser_and_tested_by_nobody():
    concept = tiny_concept()
    refuse_used(replace(concept, anchor=Splits(fit=(Prompt("a thing"),), test=(Prompt("a thing"),))), None)


@pytest.mark.parametrize(
    "made_by",
    [
        {"prompts": ["see the cat"]},
        {"first": {"fit prompts": ["x", "see the cat"]}},
        {"prompts": [Prompt("see the cat")]},
    ],
)
def test_prompts_that_an_erasure_says_it_used(made_by):
    with pytest.raises(UsedPrompts, match="'see the cat' \\(told to the erasure\\)"):
        refuse_used(tiny_concept(), SimpleNamespace(made_by=made_by))
    refuse_used(tiny_concept(), SimpleNamespace(made_by={"options": {"names": ["see the cat"]}}))


def test_a_recogniser_that_cannot_see_the_concept():
    blind = replace(tiny_recogniser(), labels=("cats", "dog", "sun", "none"))
    with pytest.raises(ValueError, match=r"no label 'cat'.*nearest of its labels: 'cats'"):
        audit(tiny_sd(), None, tiny_concept(), recogniser=blind)


def test_a_concept_without_test_prompts_and_an_audit_without_seeds():
    concept = tiny_concept()
    with pytest.raises(ValueError, match="no target prompts in its test split"):
        audit(tiny_sd(), None, replace(concept, target=replace(concept.target, test=())), recogniser=tiny_recogniser())
    with pytest.raises(ValueError, match="an audit needs"):
        audit(tiny_sd(), None, concept, recogniser=tiny_recogniser(), seeds=())
