"""What an attribution looks like, and that it is written and read without a loss."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import pytest

from concept_probe import figures
from concept_probe.report import attribution_from_json, attribution_to_html, attribution_to_json
from concept_probe.storage import CorruptFile, WrongFile
from concept_probe.types import Attribution, Curve, Score


def attribution() -> Attribution:
    """Three players, the second of which is worth most, and the last nothing."""

    def score(name: str, value: float, control: float | None = None) -> Score:
        return Score(name, value, value - 0.1, value + 0.1, 8, "rate", "none", control)

    def curve(name: str, y: tuple[float, ...]) -> Curve:
        low, high = (tuple(v + by for v in y) for by in (-0.05, 0.05))
        return Curve(name, "players taken out", "detection", (0.0, 1.0, 3.0), y, low, high, y[::-1], "in random orders")

    return Attribution(
        "camel", "emoji", (score("a<b>", 0.2, 0.1), score("b", 0.7, 0.0), score("c", 0.0, -0.1)),
        (score("like a", 0.1), score("like b", 0.0), score("like c", -0.1)), score("whole", 0.95), score("none", 0.05), 1e-17,
        curve("deletion", (0.95, 0.2, 0.05)), curve("insertion", (0.05, 0.7, 0.95)), "mean", "detection", "shapley", "select",
        123, score("area under deletion", 0.3, 0.5), score("area under insertion", 0.7, 0.5), {"prompts": 8, "lists": ["target"]},
    )  # fmt: skip


def drawn(figure: go.Figure) -> list[Any]:
    return list(figure.data)


def test_players_come_most_first_with_intervals_and_controls():
    bars, marks = drawn(figures.attribution(attribution()))
    assert list(bars.y) == ["b", "a&#60;b&#62;", "c"] and list(bars.x) == [0.7, 0.2, 0.0]
    assert list(bars.error_x.array) == pytest.approx([0.1] * 3) and list(marks.x) == [0.0, 0.1, -0.1]
    assert len(drawn(figures.attribution(attribution(), most=2))[0].x) == 2


def test_without_controls_there_are_no_marks():
    figure: Any = figures.attribution(replace(attribution(), controls=()))
    assert len(figure.data) == 1 and not figure.layout.showlegend


def test_curves_have_bands_and_random_orders():
    figure: Any = figures.removal_curves(attribution())
    named = {line.name: list(line.y) for line in figure.data if line.name}
    assert named["deletion"] == [0.95, 0.2, 0.05] and named["deletion in random orders"] == [0.05, 0.2, 0.95]
    assert "insertion" in named and len(figure.data) == 6


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="no player"):
        figures.attribution(replace(attribution(), scores=()))
    with pytest.raises(ValueError, match="not judged"):
        figures.removal_curves(replace(attribution(), deletion=None, insertion=None))


@pytest.mark.parametrize("found", [attribution(), replace(attribution(), deletion=None, gap=None, controls=())])
def test_json_gives_it_back_exactly(found):
    assert attribution_from_json(attribution_to_json(found)) == found


def test_numbers_that_are_none_are_kept():
    odd = replace(attribution(), gap=math.inf)
    assert attribution_from_json(attribution_to_json(odd)) == odd


def test_an_altered_or_another_file_is_refused():
    text = attribution_to_json(attribution())
    value = json.loads(text)
    value["scores"][0]["value"] = 0.9
    with pytest.raises(CorruptFile, match="altered"):
        attribution_from_json(json.dumps(value))
    with pytest.raises(WrongFile, match="not an attribution"):
        attribution_from_json(json.dumps({**value, "schema": "concept_probe.report/2"}))
    with pytest.raises(CorruptFile, match="scores"):
        attribution_from_json(json.dumps({k: v for k, v in value.items() if k != "scores"}))


def test_the_page_says_what_was_found_and_fetches_nothing():
    shown = attribution_to_html(attribution())
    assert "a&lt;b&gt;" in shown and "<td>0.7</td>" in shown and "within 1e-17" in shown and "123 answers" in shown
    assert "https://" not in shown.split("<script>")[0]


def test_shares_and_order():
    found = attribution()
    assert found.order() == (1, 0, 2) and found.players == ("a<b>", "b", "c")
    assert found.share("b") == pytest.approx(7 / 9)
    nothing = replace(found, scores=tuple(replace(s, value=0.0) for s in found.scores))
    assert math.isnan(nothing.share("b"))
    with pytest.raises(ValueError):
        found.share("d")
