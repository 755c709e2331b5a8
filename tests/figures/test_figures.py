"""Figures hold the numbers that they were given."""

import html
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import pytest
import torch

from concept_probe import figures
from tests.figures.test_boards import board, standing
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


HOSTILE = "<i>a</i><br>&lt;$b$%{x}"


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [s for v in value.values() for s in strings(v)]
    if isinstance(value, (list, tuple)):
        return [s for v in value for s in strings(v)]
    return [value] if isinstance(value, str) else []


def figures_of_strangers() -> dict[str, go.Figure]:
    """Every figure that shows somebody's words, of results in which they look like plotly's own."""
    whole = report()
    found = [
        replace(f, metric=HOSTILE, split=f"{HOSTILE}{i}", control_name="<i>c") for i, f in enumerate(whole.findings)
    ]
    curve = replace(whole.curves[0], name=HOSTILE, x_name=HOSTILE, y_name=HOSTILE, control_name=HOSTILE)
    traces = replace(whole.traces[0], rows=tuple(f"{HOSTILE}{i}" for i, _ in enumerate(whole.traces[0].rows)), unit=HOSTILE,
                     columns=tuple(f"{HOSTILE}{i}" for i, _ in enumerate(whole.traces[0].columns)))  # fmt: skip
    index = next(iter(whole.indices.values()))
    own = standing(HOSTILE, 0.5, pruning=0.5)
    held = replace(board(own), front=(HOSTILE,))
    return {
        "indices": figures.indices(replace(whole, indices={HOSTILE: replace(index, name=HOSTILE)})),
        "detection": figures.detection(found, title=HOSTILE),
        "recovery": figures.recovery(curve),
        "ladder": figures.ladder(curve),
        "splitting_curve": figures.splitting_curve(curve),
        "training": figures.training([1.0], {HOSTILE: [1.0]}, title=HOSTILE),
        "trace": figures.trace(traces),
        "picture_grid": figures.picture_grid(
            [replace(p, name=HOSTILE + p.name, seen=HOSTILE) for p in whole.pictures], cell=999
        ),
        "features": figures.feature_contrast([1.0], [0.0], [0], names=[HOSTILE], unit=HOSTILE),
        "attacks": figures.attacks(held),
        "pareto": figures.pareto(held),
        "truth": figures.truth({HOSTILE: [0.5]}, title=HOSTILE),
    }


@pytest.mark.slow
def test_words_of_others_are_shown_as_they_are_written():
    for name, figure in figures_of_strangers().items():
        said = [s for s in strings(figure.to_plotly_json()) if not s.startswith("data:")]
        # What is in tags or places to fill in must be of the figure itself.
        assert not [s for s in said if "<i>" in s or "$b$" in s or "&lt;" in s or "%{x}a" in s], name
        assert any(html.unescape(s).count("<i>a</i>") for s in said), name
