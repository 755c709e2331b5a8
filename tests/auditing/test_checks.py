"""What an audit refuses before it makes one picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
from diffusers import EulerDiscreteScheduler

from concept_probe.auditing import AuditPlan, UsedPrompts, audit
from concept_probe.auditing.arm import arm_of, arms_of
from concept_probe.auditing.checks import refuse_used, warn_of_another
from concept_probe.erasers import Edit, Uce
from concept_probe.testing.concepts import tiny_concept, tiny_recogniser
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt, Splits, fingerprint


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


SEEN = [fingerprint("a dog"), fingerprint("See  the CAT")]


def made_from(made_by) -> Edit:
    return Edit("uce", "cat", {}, "", made_by)


@pytest.mark.parametrize(
    "made_by",
    [
        {"prompts_seen": SEEN},
        {"method": "then", "first": {"prompts_seen": []}, "second": {"prompts_seen": SEEN}},
        {"method": "combine", "parts": {"0": {"prompts_seen": SEEN}}},
    ],
)
def test_prompts_that_an_erasure_says_it_saw(made_by):
    with pytest.raises(UsedPrompts, match=r"1 test prompts.*'see the cat' \(told to the erasure\)"):
        refuse_used(tiny_concept(), made_from(made_by))


def test_other_fields_that_speak_of_prompts_are_no_prompts_seen():
    refuse_used(tiny_concept(), made_from({"options": {"prompts_kept": ["see the cat"]}, "prompts_seen": SEEN[:1]}))


def test_an_erasure_that_an_eraser_made_says_what_it_saw():
    concept = tiny_concept()
    edit = Uce()(tiny_sd(), concept)
    refuse_used(concept, edit)
    with pytest.raises(UsedPrompts, match="told to the erasure"):
        refuse_used(replace(concept, target=Splits(test=concept.target.fit)), edit)


def test_a_recogniser_that_cannot_see_the_concept():
    blind = replace(tiny_recogniser(), labels=("cats", "dog", "sun", "none"))
    with pytest.raises(ValueError, match=r"no label 'cat'.*nearest of its labels: 'cats'"):
        audit(tiny_sd(), None, tiny_concept(), recogniser=blind)


def test_a_concept_without_test_prompts_and_an_audit_without_seeds():
    concept = tiny_concept()
    with pytest.raises(ValueError, match="no target prompts in its test split"):
        audit(tiny_sd(), None, replace(concept, target=replace(concept.target, test=())), recogniser=tiny_recogniser())
    with pytest.raises(ValueError, match="an audit needs"):
        AuditPlan(seeds=())


def test_an_erasure_that_was_made_for_another_concept_is_said(recwarn):
    warn_of_another(tiny_concept(), None)
    for of in ("cat", "dog+cat"):
        warn_of_another(tiny_concept(), replace(made_from({}), concept=of))
    assert not recwarn.list
    with pytest.warns(UserWarning, match="uce was made for 'catalogue', and the audit is of 'cat'"):
        warn_of_another(tiny_concept(), replace(made_from({}), concept="catalogue"))


def test_models_that_draw_otherwise_are_in_another_state_whatever_their_weights():
    subject = tiny_sd()
    usual = arm_of("before", subject)
    assert arm_of("before", subject).state == usual.state
    with subject.sized(24, 16):
        large = arm_of("before", subject)
    subject.pipeline.scheduler = EulerDiscreteScheduler()
    other = arm_of("before", subject)
    assert usual.hash == large.hash == other.hash and len({a.state for a in (usual, large, other)}) == 3
    with subject.sized(24, 16), pytest.raises(ValueError, match=r"draws pictures of 16 x 16 pixels and .* of 24 x 16"):
        arms_of(subject, None, tiny_sd(), None)
