"""An unlearner says what it cost answers that it was not made from, and warns where neighbours paid more."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from concept_probe.detect.answers import continuation
from concept_probe.erasers import GradAscent, Npo
from concept_probe.erasers.unlearning.costs import answers_fell
from concept_probe.testing.concepts import tiny_facts
from concept_probe.testing.models.language import tiny_llama
from concept_probe.types import Splits

CONCEPT = tiny_facts()
CONCEPT = replace(CONCEPT, target=replace(CONCEPT.target, select=CONCEPT.target.fit))


def test_what_fell_is_measured_on_select_prompts():
    subject = tiny_llama()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edit = Npo(steps=12, batch=4, rate=0.05, retain=5.0)(subject, CONCEPT)
    for name, splits in (("target", CONCEPT.target), ("neighbours", CONCEPT.neighbours)):
        pairs = [(p, continuation(p, p.answers[0])) for p in splits.select]
        with torch.no_grad():
            before = subject.log_probs(pairs).mean
            with edit.on(subject):
                fell = float((before - subject.log_probs(pairs).mean).mean())
        assert edit.made_by[f"{name}_fell"] == pytest.approx(fell, abs=1e-5)
    assert edit.made_by["target_fell"] > edit.made_by["neighbours_fell"]


def test_neighbours_that_pay_more_are_told():
    """The target's answers are unlearned, and asked of as if they were a neighbour's."""
    subject = tiny_llama()
    turned = replace(
        CONCEPT, target=replace(CONCEPT.target, select=CONCEPT.neighbours.select),
        neighbours=replace(CONCEPT.neighbours, select=CONCEPT.target.fit),
    )  # fmt: skip
    with pytest.warns(
        UserWarning, match=r"grad_ascent: on select prompts .* neighbours fell further .* nats .*`retain`"
    ):
        edit = GradAscent(steps=8, batch=4, rate=0.05)(subject, turned)
    assert edit.made_by["neighbours_fell"] > edit.made_by["target_fell"]
    assert answers_fell(subject, edit, replace(CONCEPT, neighbours=Splits())) is None
