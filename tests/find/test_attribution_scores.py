"""Slopes, curves and controls of an attribution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.find import Player, Spot, attribute
from concept_probe.find.attribution.players import players_of, readers_of
from concept_probe.find.removals import removal_of
from concept_probe.find.removals.acting import without
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.found import aimed_columns
from concept_probe.testing.models import TINY_MODELS
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Subspace
from tests.find.attribution_cases import SAMPLING, about, game_of, one_by_one, plan_of, spots


@pytest.mark.parametrize("behaviour", ["readout", "answers", "odds"])
def test_gradients_are_slopes_of_the_values(behaviour):
    subject = TINY_MODELS["gpt2"]()
    players = players_of(spots(subject))
    game = game_of(subject, players, "zero", behaviour)
    at = torch.tensor([0.4, 0.6], dtype=torch.float64)
    slopes = game.gradients(at)
    for i in range(2):
        step = 1e-2 * torch.eye(2, dtype=torch.float64)[i]
        numeric = (game.values(at + step) - game.values(at - step)) / 2e-2
        torch.testing.assert_close(slopes[i], numeric, atol=5e-3, rtol=5e-2)


def test_integrated_gradients_say_how_far_they_are_off():
    subject = TINY_MODELS["gpt2"]()
    found = attribute(subject, about(subject), spots(subject), "zero", "readout", "gradients", plan_of(subject))
    assert found.gap is not None and abs(found.gap) < 0.05 * abs(found.whole.value - found.none.value)


def test_curves_start_and_end_where_they_must_and_have_controls():
    subject = tiny_sd()
    plan = plan_of(subject, judged="test", controls=True, points=3)
    found = attribute(subject, tiny_concept(), one_by_one(subject)[:4], "zero", "readout", "shapley", plan)
    down, up = found.deletion, found.insertion
    assert down and up and down.x == (0, 2, 4) and len(down.control) == 3
    assert down.y[0] == pytest.approx(up.y[-1]) and down.y[-1] == pytest.approx(up.y[0])
    assert down.control[0] == pytest.approx(down.y[0])
    assert found.deletion_area and found.deletion_area.control is not None
    assert len(found.controls) == 4 and [s.control for s in found.scores] == [c.value for c in found.controls]
    assert found.share(found.players[0]) == pytest.approx(
        found.scores[0].value / sum(score.value for score in found.scores)
    )


@pytest.mark.parametrize("what", ["columns", "features", "directions", "spots"])
def test_controls_are_others_of_the_same_kind(what):
    from concept_probe.find.attribution.controls import MatchedPlayers
    from concept_probe.testing.found import directions

    subject, concept = tiny_sd(), tiny_concept()
    parts: list[Any] = {
        "columns": lambda: list(aimed_columns(subject, concept)),
        "features": lambda: one_by_one(subject),
        "directions": lambda: list(directions(subject, concept)[:1]),
        "spots": lambda: list(spots(subject)),
    }[what]()
    players = players_of(parts)
    like = MatchedPlayers(subject, concept, SAMPLING).players(players)
    assert [len(p.parts) for p in like] == [len(p.parts) for p in players]
    for own, other in zip(players, like, strict=True):
        a, b = own.parts[0], other.parts[0]
        assert type(a) is type(b)
        if isinstance(a, Subspace) and isinstance(b, Subspace):
            assert b.basis.shape == a.basis.shape and not torch.equal(a.basis, b.basis)
            assert not set(b.features) & {j for p in parts for j in p.features}
    assert len({str(p.parts[0].site) + str(getattr(p.parts[0], "features", "")) for p in like}) == len(like)
    readers_of(subject, like)


def test_a_turned_spot_is_as_large_as_the_real_one():
    subject = tiny_sd()
    site = subject.sites("text_mlp_out")[0]
    change = {}
    for turn in (None, 5):
        (reader,) = readers_of(subject, [Player("it", (Spot(site, ("eos",), turn=turn),))])
        seen: list[Tensor] = []
        with (
            tap(subject, {site: lambda x, m, seen=seen: seen.append(x[m.token_kinds == 3].clone())}),
            without(subject, [reader], removal_of("zero"), torch.zeros(1)),
            tap(subject, {site: lambda x, m, seen=seen: seen.append(x[m.token_kinds == 3].clone())}),
        ):
            subject.encode(list(tiny_concept().target.fit))
        change[turn] = seen[1] - seen[0]
    torch.testing.assert_close(change[None].norm(dim=1), change[5].norm(dim=1))
    assert not torch.allclose(change[None], change[5], atol=1e-3)
