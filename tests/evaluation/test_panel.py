"""Panels spread over lists of prompts, and are judged by the list that is worst off."""

from __future__ import annotations

from dataclasses import replace

import torch

from concept_probe.evaluation.panel import panel, worst_residual, worst_retention
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
