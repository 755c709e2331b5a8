"""How strong an erasure is stands in its name wherever people read it, and in no key."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.auditing import AuditPlan, audit
from concept_probe.erasers import Edit, Intervention
from concept_probe.erasers.erasure.combine import combine
from concept_probe.erasers.erasure.deltas import Shift
from concept_probe.erasers.erasure.provenance import shown_name
from concept_probe.report import to_html, to_markdown
from concept_probe.types import Sampling
from tests.auditing.known import Known, Reader, concept

UCE = Edit(
    "uce", "cat", {"unet/conv_in:bias": Shift(torch.zeros(4))}, "base", {"method": "uce", "options": {"strength": 1.0}}
)
ESD = replace(UCE, name="esd", made_by={"method": "esd", "options": {"strength": 2.0}})
GUARD = Intervention("blocklist", "cat", {})


def then(first: Edit, second: Edit) -> Edit:
    """As `Edit.then` notes it."""
    made = {"method": "then", "first": dict(first.made_by), "second": dict(second.made_by)}
    return replace(first, name=f"{first.name}+{second.name}", made_by=made)


@pytest.mark.parametrize("erasure, shown", [
    (UCE, "uce"),
    (UCE.scaled(20), "uce × 20"),
    (UCE.scaled(4).scaled(0.25), "uce"),
    (UCE.scaled(2).scaled(1.5), "uce × 3"),
    (UCE.scaled(0), "uce × 0"),
    (UCE.scaled(-1), "uce × -1"),
    (ESD, "esd × 2"),
    (ESD.scaled(0.5), "esd"),
    (GUARD, "blocklist"),
    (GUARD.scaled(1.6), "blocklist × 1.6"),
    (then(UCE, UCE), "uce+uce"),
    (then(UCE.scaled(20), ESD), "uce × 20 + esd × 2"),
    (then(UCE, ESD).scaled(3), "uce × 3 + esd × 6"),
    (then(then(UCE, UCE.scaled(2)), UCE), "uce + uce × 2 + uce"),
    (combine([UCE.scaled(20), ESD]), "uce × 20 + esd × 2"),
    (combine([UCE.scaled(5), replace(UCE, concept="dog").scaled(5)]), "uce × 5"),
    (replace(UCE, made_by={}), "uce"),
])  # fmt: skip
def test_the_strength_is_in_the_name_as_shown(erasure: Edit | Intervention, shown: str):
    assert shown_name(erasure) == shown
    assert "×" not in erasure.name


@pytest.mark.slow
def test_a_report_names_the_strength():
    plan = AuditPlan(prompts=2, seeds=(0,), sampling=Sampling(steps=2), attacks=(), resamples=100)
    report = audit(Known(0, concept()), GUARD.scaled(20), concept(), recogniser=Reader(), plan=plan)
    assert report.erasure == "blocklist × 20"
    assert "blocklist × 20" in to_markdown(report) and "<code>blocklist × 20</code>" in to_html(report)
