"""Attribution by removal on tiny models of every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from concept_probe.find import BEHAVIOURS, PLAYERS, REMOVALS, SUMMARIES, attribute
from concept_probe.registry import UnknownName
from concept_probe.testing.found import features_of, random_sae, stream
from concept_probe.testing.models import TINY_MODELS
from tests.find.attribution_cases import FAMILIES, about, plan_of, spots


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_every_behaviour_of_every_family_adds_up(model, behaviour):
    subject = TINY_MODELS[model]()
    if BEHAVIOURS[behaviour].on not in ("both", subject.answers):
        with pytest.raises(ValueError, match="answers with"):
            attribute(subject, about(subject), spots(subject), "zero", behaviour, "shapley", plan_of(subject))
        return
    found = attribute(subject, about(subject), spots(subject), "zero", behaviour, "shapley", plan_of(subject))
    assert len(found.scores) == 2 and found.gap == pytest.approx(0, abs=1e-9)
    if behaviour not in ("detection", "probability"):  # what a random recogniser sees may not change
        assert any(score.value for score in found.scores)
    if behaviour == "divergence":
        assert found.whole.value == 0 and found.none.value < 0


@pytest.mark.parametrize("model", ("sd", "gpt2"))
@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("summary", SUMMARIES)
def test_every_removal_under_every_summary(model, removal, summary):
    """Two features that always fire, and one that never does and is worth exactly nothing."""
    subject = TINY_MODELS[model]()
    sae: Any = random_sae(subject, stream(subject))
    with torch.no_grad():
        sae.b_enc[:2], sae.b_enc[2] = 3.0, -1e6
    players = tuple(features_of(sae, [j]) for j in range(3))
    if summary == "gradients" and REMOVALS[removal].draws:
        with pytest.raises(ValueError, match="draws where it ends"):
            attribute(subject, about(subject), players, removal, "readout", summary, plan_of(subject))
        return
    found = attribute(subject, about(subject), players, removal, "readout", summary, plan_of(subject))
    assert all(score.low <= score.high for score in found.scores)
    assert any(abs(score.value) > 1e-9 for score in found.scores[:2])
    if removal != "project":  # which takes the direction, whoever writes it
        assert found.scores[2].value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("players", PLAYERS)
def test_named_players_of_every_family_can_be_played_or_are_refused(model, players):
    subject = TINY_MODELS[model]()
    readable = subject.answers == "texts"
    if players == "features":  # none is shipped for a tiny model
        with pytest.raises(UnknownName, match="shipped autoencoder"):
            attribute(subject, about(subject), players, "zero", "divergence", "alone", plan_of(subject))
        return
    if players == "cross" and (readable or model == "pixart-alpha"):
        with pytest.raises((ValueError, UnknownName)):
            attribute(subject, about(subject), players, "zero", "divergence", "alone", plan_of(subject))
        return
    found = attribute(subject, about(subject), players, "zero", "divergence", "alone", plan_of(subject))
    assert any(score.value for score in found.scores) and len(set(found.players)) == len(found.players)


@pytest.mark.parametrize("behaviour", ["readout", "divergence"])
@pytest.mark.parametrize("model", [name for name in TINY_MODELS if name not in FAMILIES])
def test_every_other_model_plays_its_feed_forward_parts(model, behaviour):
    subject = TINY_MODELS[model]()
    found = attribute(subject, about(subject), "mlp", "mean", behaviour, "alone", plan_of(subject))
    assert any(score.value for score in found.scores)
