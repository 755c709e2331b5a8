"""Concept sliders add the concept with one sign and take it away with the other."""

from __future__ import annotations

import pytest
import torch

from concept_probe.erasers import Slider, Training
from concept_probe.erasers.training.replay import collect, extrapolated_predictions, predictions
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd
from concept_probe.types import Sampling

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=3, guidance=2.0, batch=8)


def test_its_goal_lies_on_the_line_from_the_anchor_to_the_concept():
    subject = tiny_sd()
    pool = collect(subject, CONCEPT.anchor.fit[:1], 2, SAMPLING, 0)
    asked = [CONCEPT.target.fit[0]] * len(pool)
    anchor, own = (predictions(subject, pool, prompts) for prompts in (pool.prompts, asked))
    for eta in (0.0, 1.0, 2.5):
        torch.testing.assert_close(
            extrapolated_predictions(subject, pool, pool.prompts, asked, eta), (1 - eta) * anchor + eta * own
        )


@pytest.mark.slow
@pytest.mark.parametrize("family", DIFFUSION)
def test_with_its_own_sign_the_anchor_is_read_as_the_concept_and_with_the_other_it_is_not(family):
    subject = DIFFUSION[family]()
    school = Training(steps=24, batch=8, pictures=8, sampling=SAMPLING, rate=0.02, retain=0.0)
    edit = Slider(training=school)(subject, CONCEPT)
    pool = collect(subject, CONCEPT.anchor.fit, 4, SAMPLING, 50)
    concept = predictions(subject, pool, [CONCEPT.target.fit[0]] * len(pool))

    def gap() -> float:
        return float((predictions(subject, pool, pool.prompts) - concept).square().mean())

    before = gap()
    with edit.scaled(-1).on(subject):
        added = gap()
    with edit.on(subject):
        taken = gap()
    assert added < before < taken


def test_strength_zero_trains_nothing():
    assert not Slider(strength=0.0)(tiny_sd(), CONCEPT).deltas
