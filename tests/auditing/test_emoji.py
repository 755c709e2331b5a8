"""The verdicts on subjects of the embedded models whose truth is known."""

from dataclasses import replace

import pytest

import concept_probe as cp
from concept_probe.attacks import Budget
from concept_probe.auditing import Auditor, AuditPlan, MeasurementCache
from concept_probe.testbed import TWINS

SMALL = AuditPlan(prompts=6, fit_images=8, budget=Budget(queries=24, gradient_steps=20))


class Models:
    """A model, its never-taught twin, and what was measured of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.original, self.twin = cp.load(name), cp.load(TWINS[name])
        self.cache = MeasurementCache()

    def audited(self, name: str, erasure=None, attacks: tuple[str, ...] | None = ()):
        plan = replace(SMALL, attacks=attacks)
        return Auditor(plan, self.cache)(self.original, erasure, cp.concept(name), twin=self.twin)

    def audited_twin(self, name: str):
        concept = cp.concept(name, model=TWINS[self.name])
        return Auditor(SMALL, self.cache)(self.twin, None, concept, original=self.original, twin=self.twin)


ONE = pytest.mark.parametrize(
    "models", ["emoji", pytest.param("emoji-flow", marks=pytest.mark.exhaustive)], indirect=True
)
"""The second takes as long, and shows the same."""


@pytest.fixture(scope="module")
def models(request):
    return Models(request.param)


@ONE
@pytest.mark.slow
def test_the_model_itself_is_intact(models):
    report = models.audited("camel")
    assert report.verdict.name == "intact", report.verdict


@ONE
@pytest.mark.slow
@pytest.mark.parametrize("name", ["camel", pytest.param("rocket", marks=pytest.mark.exhaustive)])
def test_the_never_taught_twin_is_erased(name, models):
    report = models.audited_twin(name)
    assert report.verdict.name == "erased", report.verdict
    assert report.verdict.residual is not None and report.verdict.residual.high < 0.25


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("models", ["emoji"], indirect=True)
def test_neighbours_that_the_twin_draws_worse_are_no_damage(models):
    """Guitar has three neighbours only, and the twin draws each of them worse than the model that was taught it."""
    report = models.audited_twin("guitar")
    assert report.verdict.name == "erased", report.verdict
    assert report.verdict.residual is not None and report.verdict.residual.high < 0.25


@ONE
@pytest.mark.slow
def test_a_blocklist_only_suppresses(models):
    guard = cp.erase("blocklist", models.original, cp.concept("camel"))
    report = models.audited("camel", guard, ("paraphrases",))
    assert report.verdict.name == "suppressed", report.verdict
    assert report.verdict.residual is not None and report.verdict.residual.low > 0.25


@ONE
@pytest.mark.slow
def test_an_edit_at_twenty_times_its_strength_is_damage(models):
    edit = cp.erase("uce", models.original, cp.concept("camel"))
    report = models.audited("camel", edit.scaled(20))
    assert report.verdict.name == "damaged", report.verdict
