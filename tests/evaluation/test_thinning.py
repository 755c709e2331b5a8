"""A few prompts that stand for many."""

from __future__ import annotations

import pytest

from concept_probe.evaluation.thinning import scattered
from concept_probe.types import evenly, evenly_with_ends


@pytest.mark.parametrize(("count", "size"), [(8, 16), (12, 16), (16, 56), (16, 32), (3, 1), (5, 2), (40, 16)])
def test_scattered_places_are_even_and_in_no_step_with_styles(count: int, size: int):
    places = scattered(count, size)
    used = [places.count(i) for i in range(size)]
    assert max(used) - min(used) <= 1
    if size % 4 == 0:
        styles = [sum(place % 4 == style for place in places) for style in range(4)]
        assert max(styles) - min(styles) <= 1


@pytest.mark.parametrize(("n", "count"), [(10, 3), (10, 10), (7, 5), (100, 9), (3, 5), (5, 1)])
def test_even_items_keep_their_order_and_are_as_far_apart_as_can_be(n: int, count: int):
    chosen = evenly(range(n), count)
    assert len(chosen) == min(n, count) and chosen[0] == 0 and list(chosen) == sorted(set(chosen))
    gaps = {b - a for a, b in zip(chosen, (*chosen[1:], n), strict=True)}
    assert max(gaps) - min(gaps) <= 1
    if count > 1:
        ends = evenly_with_ends(range(n), count)
        assert len(ends) == min(n, count) and (ends[0], ends[-1]) == (0, n - 1)
