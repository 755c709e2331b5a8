"""The verdicts on subjects of the embedded models whose truth is known."""

from dataclasses import replace

import pytest

import concept_probe as cp
from concept_probe.attacks import Budget
from concept_probe.auditing import Auditor, AuditPlan, MeasurementCache

SMALL = AuditPlan(prompts=6, fit_images=8, budget=Budget(queries=24, gradient_steps=20))


@pytest.fixture(scope="module")
def emoji():
    return cp.load("emoji")


@pytest.fixture(scope="module")
def twin():
    return cp.load("emoji-untaught")


@pytest.fixture(scope="module")
def cache():
    return MeasurementCache()


@pytest.mark.slow
def test_the_model_itself_is_intact(emoji, twin, cache):
    report = Auditor(replace(SMALL, attacks=()), cache)(emoji, None, cp.concept("camel"), twin=twin)
    assert report.verdict.name == "intact", report.verdict


@pytest.mark.slow
@pytest.mark.parametrize("name", ["camel", pytest.param("rocket", marks=pytest.mark.exhaustive)])
def test_the_never_taught_twin_is_erased(name, emoji, twin, cache):
    concept = cp.concept(name, model="emoji-untaught")
    report = Auditor(SMALL, cache)(twin, None, concept, original=emoji, twin=twin)
    assert report.verdict.name == "erased", report.verdict
    assert report.verdict.residual is not None and report.verdict.residual.high < 0.25


@pytest.mark.slow
@pytest.mark.exhaustive
def test_neighbours_that_the_twin_draws_worse_are_no_damage(emoji, twin, cache):
    """Guitar has three neighbours only, and the twin draws each of them worse than the model that was taught it."""
    concept = cp.concept("guitar", model="emoji-untaught")
    report = Auditor(SMALL, cache)(twin, None, concept, original=emoji, twin=twin)
    assert report.verdict.name == "erased", report.verdict
    assert report.verdict.residual is not None and report.verdict.residual.high < 0.25


@pytest.mark.slow
def test_a_blocklist_only_suppresses(emoji, twin, cache):
    concept = cp.concept("camel")
    guard = cp.erase("blocklist", emoji, concept)
    report = Auditor(replace(SMALL, attacks=("paraphrases",)), cache)(emoji, guard, concept, twin=twin)
    assert report.verdict.name == "suppressed", report.verdict
    assert report.verdict.residual is not None and report.verdict.residual.low > 0.25


@pytest.mark.slow
def test_an_edit_at_twenty_times_its_strength_is_damage(emoji, twin, cache):
    concept = cp.concept("camel")
    edit = cp.erase("uce", emoji, concept)
    report = Auditor(replace(SMALL, attacks=()), cache)(emoji, edit.scaled(20), concept, twin=twin)
    assert report.verdict.name == "damaged", report.verdict
