"""Panels spread over lists of prompts, and are judged by the list that is worst off."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from concept_probe.evaluation.panel import (
    NothingSeen,
    panel,
    share_of_control,
    unrecognised,
    worst_residual,
    worst_retention,
)
from concept_probe.testing.concepts import tiny_concept

CONCEPT = tiny_concept()


def test_a_panel_spreads_over_lists_and_gives_every_picture_its_seed():
    tested = panel(CONCEPT, images=10)
    assert len(tested.forget) == len(tested.retain) == 10
    assert len({q.seed for q in (*tested.forget, *tested.retain)}) == 20
    lists = [CONCEPT.target.select, CONCEPT.paraphrases.select, CONCEPT.implicit.select]
    assert all(any(q.prompt in prompts for q in tested.forget) for prompts in lists)
    assert all(q.prompt in (*CONCEPT.neighbours.select, *CONCEPT.unrelated.select) for q in tested.retain)


def test_the_list_that_keeps_most_is_what_is_left():
    tested = panel(CONCEPT, images=6)
    assert tested.forget_lists == (0, 0, 1, 1, 2, 2)
    after, before = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0, 1.0]), torch.ones(6)
    assert worst_residual(tested, after, before, 0).value == 1.0
    assert worst_residual(replace(tested, forget_lists=()), after, before, 0).value == 0.5
    lists = torch.tensor(tested.retain_lists)
    kept = torch.where(lists == 1, 0.25, 1.0)
    assert worst_retention(tested, kept, torch.ones(6), 0).value == 0.25


def test_others_that_nobody_recognises_are_not_counted_as_kept():
    tested = panel(CONCEPT, images=6)
    lists = torch.tensor(tested.retain_lists)
    before, after = (lists == 1).float(), (lists == 1).float() * 0.5
    assert share_of_control(worst_retention(tested, after, before, 0)) == 0.5
    (said,) = unrecognised(tested, before)
    first = tested.retain[tested.retain_lists.index(0)].prompt
    assert said.startswith(f"{first.label!r} and what else the list of {first.text!r} asks for is seen in none of")
    assert unrecognised(tested, torch.ones(len(lists))) == ()
    nobody = torch.zeros(len(lists))
    with pytest.raises(NothingSeen, match=r"nothing is seen in .* so what they keep can't be said"):
        unrecognised(tested, nobody)
    assert math.isnan(share_of_control(worst_retention(tested, nobody, nobody, 0)))
