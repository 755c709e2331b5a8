"""Every method with the settings of its authors against their formula, written out by itself; `benchmarks/parity.py` tells all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.erasers import ERASERS
from tests.parity import closed, guards, language, training
from tests.parity.drawn import Case, relative

CASES: dict[str, Case] = {**closed.CASES, **guards.CASES, **training.CASES, **language.CASES}


@pytest.mark.parametrize("name", CASES)
def test_a_method_is_the_formula_of_its_authors(name: str):
    assert name.partition(" (")[0] in ERASERS
    assert relative(CASES[name]()) < 1e-4


def test_a_difference_is_told():
    assert relative((torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("safree", {"concept_last": False}),
        ("steer", {"all_features": False}),
        ("steer", {"mirror": False}),
        ("saeuron", {"multiply": False}),
        ("itd", {"whole_prompt": False}),
        ("pisces", {"by_reading": False, "signs": "both"}),
        ("concept_ablation", {"own_target": False}),
        ("uce", {"kept_tokens": None}),
        ("esd (modules)", {"leave_norms": False}),
        ("slider (modules)", {"modules": None}),
    ],
)
def test_without_an_option_it_is_another(name: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch):
    """What each option is for: with this project's default the formula of the authors is not met."""
    kind = ERASERS[name.partition(" (")[0]]
    theirs = kind.published()
    monkeypatch.setattr(kind, "published", classmethod(lambda cls: replace(theirs, **options)))
    assert relative(CASES[name]()) > 1e-2
