"""Figures of dictionaries hold the numbers that they were given."""

from __future__ import annotations

from typing import Any

import pytest

from concept_probe import figures
from concept_probe.types import Curve


def traces(figure) -> dict[str, Any]:
    return {t.name: t for t in figure.data if t.name}


def test_density_keeps_features_that_never_fire_apart():
    figure: Any = figures.density([0.0, 0.01, 0.1], [0.001, 0.0, 0.0])
    found = traces(figure)
    assert list(found["this autoencoder"].x)[1:] == pytest.approx([-2, -1])
    never = next(iter(found["this autoencoder"].x))
    assert list(found["untrained"].x) == pytest.approx([-3, never, never]) and never < -3
    assert figure.layout.xaxis.ticktext[0] == "never"
    low, high = figure.layout.xaxis.range
    assert low < never and high > 0


def test_density_of_nothing_that_fires_can_be_drawn():
    figure: Any = figures.density([0.0, 0.0])
    assert len(figure.data[0].x) == 2


@pytest.mark.parametrize("draw", [figures.nearest_cosines, figures.stability_cosines])
def test_cosines_stand_beside_their_control(draw):
    figure = draw([0.5, 1.0, -0.2], [0.1, 0.2])
    mine, control = (list(t.x) for t in reversed(figure.data))
    assert mine == [0.5, 1.0, -0.2] and control == [0.1, 0.2]
    assert figure.layout.xaxis.range[0] <= -0.2 and figure.layout.showlegend
    assert all(t.xbins.start <= -0.2 and t.xbins.end > 1 for t in figure.data)
    assert len(draw([0.5]).data) == 1


def test_splitting_draws_curve_band_and_random_features():
    curve = Curve(
        "splitting",
        "features in the probe",
        "F1",
        (1, 2),
        (0.5, 0.8),
        (0.4, 0.7),
        (0.6, 0.9),
        (0.2, 0.3),
        "random features",
    )
    figure: Any = figures.splitting_curve(curve)
    found = traces(figure)
    assert list(found["the concept's features"].y) == [0.5, 0.8] and list(found["random features"].y) == [0.2, 0.3]
    band = next(t for t in figure.data if t.fill == "toself")
    assert list(band.y) == [0.6, 0.9, 0.7, 0.4]
