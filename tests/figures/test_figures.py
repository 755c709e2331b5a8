"""Figures hold the numbers that they were given."""

from typing import Any

import plotly.graph_objects as go
import pytest
import torch

from concept_probe import figures
from tests.report.one_of_each import report


def drawn(figure: go.Figure) -> list[Any]:
    return list(figure.data)


def test_indices_show_every_index_and_the_residual():
    figure = figures.indices(report(), threshold=0.25)
    marks = drawn(figure)[0]
    assert list(marks.y) == ["recovery", "behaviour", "residual (largest)"]
    assert marks.x[0] == pytest.approx(0.62)
    assert "threshold 0.25" in [a.text for a in figure.layout.annotations]


def test_detection_draws_before_after_and_control():
    found = [f for f in report().findings if f.metric == "detection"]
    figure = figures.detection(found)
    assert [t.name for t in drawn(figure)] == ["before", "after", "never-taught twin"]
    assert list(drawn(figure)[1].y) == [0.02, 0.95]
    with pytest.raises(ValueError, match="one metric"):
        figures.detection(report().findings)


def test_recovery_draws_curve_band_and_control():
    figure = figures.recovery(report().curves[0])
    names = [t.name for t in drawn(figure)]
    assert "same attack on the twin" in names
    curve = next(t for t in drawn(figure) if list(t.y or ()) == [0, 0.3, 0.6])
    assert list(curve.x) == [0, 30, 60]


def test_trace_draws_before_and_after_on_one_scale():
    figure = figures.trace(report().traces[0])
    maps = [t for t in drawn(figure) if isinstance(t, go.Heatmap)]
    assert len(maps) == 2


def test_a_grid_holds_every_picture_and_pairs_seeds():
    figure = figures.picture_grid(report().pictures)
    assert len(figure.layout.images) == 9
    with pytest.raises(ValueError, match="lack a pair"):
        figures.picture_grid(report().pictures[:-1])


def test_png_keeps_the_pixels():
    import io

    import numpy as np
    from PIL import Image

    image = torch.rand(3, 5, 7)
    back = np.asarray(Image.open(io.BytesIO(figures.png(image))))
    assert np.allclose(back, (image * 255).round().byte().permute(1, 2, 0).numpy())
