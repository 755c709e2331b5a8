"""Maps over a picture: where a value stands, and how much colour it has."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from concept_probe import figures
from concept_probe.figures.attention import over_picture
from concept_probe.figures.theme import AFTER, CONTROL

PICTURE = torch.full((3, 8, 16), 0.5)


def rgb(colour: str) -> torch.Tensor:
    return torch.tensor([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def gap(pixel: torch.Tensor, colour: str) -> float:
    return float((pixel - rgb(colour)).abs().sum())


def test_each_value_colours_its_own_place_by_its_size():
    values = torch.tensor([[0.0, 0.5, 1.0, 0.0]])
    drawn = over_picture(PICTURE, values, (0.0, 1.0))
    assert drawn.shape == PICTURE.shape and torch.equal(drawn[:, 0, :4], drawn[:, 7, :4])
    at = [drawn[:, 3, 4 * i + 2] for i in range(4)]
    assert gap(at[2], AFTER) < gap(at[1], AFTER) < gap(at[0], AFTER) and torch.equal(at[0], at[3])


def test_what_is_below_zero_has_a_colour_of_its_own_and_zero_has_none():
    drawn = over_picture(PICTURE, torch.tensor([[-2.0, 0.0, 1.0, 2.0]]), (-2.0, 2.0))
    at = [drawn[:, 0, 4 * i] for i in range(4)]
    assert gap(at[0], CONTROL) < 0.2 and gap(at[3], AFTER) < 0.2
    torch.testing.assert_close(at[1], torch.full((3,), 0.25 + 0.75 * 0.5))


def test_a_map_without_any_difference_is_drawn():
    assert bool(torch.isfinite(over_picture(PICTURE, torch.ones(1, 2), (1.0, 1.0))).all())


def test_figures_hold_a_tile_for_each_map_and_say_its_ends():
    shown: Any = figures.attention_overlay(
        PICTURE, {"cat": torch.tensor([[0.25, 0.5]]), "<b>": torch.tensor([[0.1, 0.2]])}
    )
    assert len(shown.layout.images) == 3
    assert [a.text for a in shown.layout.annotations][1] == "cat  0.25 to 0.5"
    assert "<b>" not in shown.to_json().replace("\\u003c", "<")
    grid: Any = figures.attention_grid(PICTURE, torch.rand(2, 3, 2, 4), ["0", "1"], ["a", "b", "c"])
    assert len(grid.layout.images) == 6
    tile = grid.layout.images[0]
    assert tile.sizex == 2 * tile.sizey, "a wide picture leaves no empty room below it"
    with pytest.raises(ValueError, match="no map was given"):
        figures.attention_overlay(PICTURE, {})
    with pytest.raises(ValueError, match=r"\(2, 3\) maps were given with 1 rows and 3 columns"):
        figures.attention_grid(PICTURE, torch.rand(2, 3, 2, 4), ["0"], ["a", "b", "c"])
