"""Methods with the settings of their authors against their formulas, written out by themselves; `benchmarks/parity.py` tells all."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from concept_probe.erasers import ERASERS
from concept_probe.testing import found
from concept_probe.testing.concepts import tiny_concept, tiny_facts
from concept_probe.testing.law import shared_subject
from concept_probe.types import Sampling
from tests.parity import answers, closed, guards, language, training
from tests.parity.drawn import Case, relative

CASES: dict[str, Case] = {**closed.CASES, **guards.CASES, **training.CASES, **answers.CASES, **language.CASES}


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
    theirs: Any = kind.published()
    monkeypatch.setattr(kind, "published", classmethod(lambda cls: replace(theirs, **options)))
    assert relative(CASES[name]()) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n, kind in ERASERS.items() if kind.authors and kind.authors.read_in != "nowhere"]
)
def test_published_settings_make_an_erasure(name: str):
    """Of every method, with the training cut short, and on models that have only a few blocks."""
    theirs: Any = ERASERS[name].published()
    options = {f.name for f in fields(theirs)}
    counted = [n for n in options if isinstance(getattr(theirs, n), int)]
    short: dict[str, object] = {n: 2 for n in ("steps", "pictures", "warmup", "rounds", "candidates") if n in counted}
    if "training" in options:
        drawn = replace(theirs.training, steps=2, pictures=1, batch=2, sampling=Sampling(2, 2.0), adversary=0)
        short["training"] = drawn
    short |= {"sampling": Sampling(2, 2.0)} if "sampling" in options else {}
    short |= {"layers": (0,)} if theirs.name == "emcid" else {"layer": 1} if "layer" in options else {}
    short |= {"modules": (), "features": "found"} if theirs.name == "crisp" else {}
    model, concept = ("sd", tiny_concept()) if theirs.on != "texts" else ("gpt2", tiny_facts())
    subject = shared_subject("sd3" if theirs.attention == "joint" else model)
    made = replace(theirs, **short)(subject, concept, found.aimed(theirs.needs, subject, concept))
    assert made.made_by["method"] == name
