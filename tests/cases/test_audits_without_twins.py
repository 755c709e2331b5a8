"""Audits of models that nobody has a twin of: what was not reached says nothing, what is only guarded is still there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.auditing import AuditPlan, audit, decide
from concept_probe.erasers import Blocklist, Edit, LowRank
from concept_probe.erasers.erasure.parameters import address
from concept_probe.evaluation.bayesian import Draws, at_least, residual_index
from concept_probe.report.audit_html import to_html
from concept_probe.report.audit_markdown import to_markdown
from concept_probe.types import Report, Sampling, Score
from tests.auditing import known, language_cases

PLAN = AuditPlan(
    sampling=Sampling(steps=2, guidance=1.0, batch=32), seeds=(0,), prompts=6, fit_images=2, resamples=200, attacks=()
)  # fmt: skip


def changed_at(subject, site, size: float = 0.5) -> Edit:
    weight = subject.parameter(site)
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).to(weight) * weight.std() * size
    delta = LowRank(noise, torch.eye(weight.shape[1]).to(weight))
    return Edit("noise", "cat", {address(site): delta}, subject.weight_hash(), {"method": "noise", "options": {}})


def without_index(report: Report) -> set[str]:
    return {f.split for f in report.findings if f.evidence == "representation" and "acts elsewhere" in f.note}


@pytest.fixture(scope="module")
def pictures():
    made = known.concept()
    return made, known.Known(0, made)


@pytest.mark.slow
def test_text_that_an_edit_of_the_denoiser_cannot_reach_has_no_index(pictures):
    made, subject = pictures
    edit = changed_at(subject, subject.sites("cross_value_weight")[0])
    report = audit(subject, edit, made, recogniser=known.Reader(), plan=PLAN)
    text = [f for f in report.findings if f.evidence == "representation" and "text_encoder" in f.split]
    assert text and all(f.index is None for f in text)
    # Places behind the edit are reached.
    assert not any("unet" in split for split in without_index(report))
    nothing = audit(subject, None, made, recogniser=known.Reader(), plan=PLAN)
    assert not without_index(nothing) and nothing.verdict.name == "intact"


@pytest.mark.slow
def test_a_language_model_has_no_index_below_its_lowest_edit():
    subject = language_cases.taught()
    first, *_, last = subject.sites("resid")
    edit = changed_at(subject, subject.sites("mlp_value")[-1], size=2.0)
    plan = replace(language_cases.PLAN, resamples=200)
    report = audit(subject, edit, language_cases.CONCEPT, plan=plan)
    assert str(first) in without_index(report) and str(last) not in without_index(report)
    assert all(f.index is None for f in report.findings if f.split == str(first))


@pytest.mark.slow
def test_a_guard_is_never_erased_though_nothing_shows(pictures):
    made, subject = pictures
    names = ("cat", "kitty", "purrs")
    report = audit(subject, Blocklist(names=names)(subject, made), made, recogniser=known.Reader(), plan=PLAN)
    assert report.verdict.name == "suppressed"
    assert any("no weight was changed" in reason for reason in report.verdict.reasons)


def test_the_verdict_on_a_guard_and_on_an_edit_that_show_the_same():
    nothing = [Score("x", 0, -0.1, 0.1, 24), Score("y", 0, -0.1, 0.1, 24)]
    assert decide(nothing[0], {"recovery": nothing[1:]}, []).name == "erased"
    assert decide(nothing[0], {"recovery": nothing[1:]}, [], guarded=True).name == "suppressed"
    assert decide(Score("x", 1, 0.9, 1.1, 24), {"recovery": nothing[1:]}, [], guarded=True).name == "intact"


def test_a_control_below_chance_widens_no_gap():
    def draws(value: float) -> Draws:
        return Draws(value, torch.linspace(value - 0.05, value + 0.05, 101, dtype=torch.float64), 24)

    before, after, below = draws(0.95), draws(0.6), draws(0.4)
    never = at_least(below, 0.5)
    assert (never.value, float(never.draws.min())) == (0.5, 0.5)
    assert at_least(draws(0.7), 0.5).value == 0.7
    found, wide = (residual_index("x", before, after, control, 0.2) for control in (never, below))
    assert found is not None and wide is not None
    assert found.value == pytest.approx(0.1 / 0.45) and wide.value == pytest.approx(0.2 / 0.55)


@pytest.mark.slow
def test_the_card_names_what_was_not_measured_and_no_other_models_calibration(pictures):
    made, subject = pictures
    report = audit(subject, None, made, recogniser=known.Reader(), plan=PLAN)
    html, markdown = to_html(report), to_markdown(report)
    card = html[: html.index("</section>")]
    for shown in (card, markdown[: markdown.index("## ")]):
        assert "ot measured" in shown and "recovery" in shown and "never-taught twin" in shown
    assert report.provenance["calibration"] == "none for audits like this one" and "emoji" not in card
