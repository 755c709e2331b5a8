"""What a choice costs, made smaller: answers and steps of its measurements, and the threads of the command line."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from concept_probe.cli import app
from concept_probe.cli.shared.making import Effort
from concept_probe.erasers import Edit, choose
from concept_probe.erasers.select.choose import CHOICE
from concept_probe.evaluation.panel import panel
from concept_probe.evaluation.selection import Selection
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Sampling


def test_an_effort_changes_what_it_names_alone():
    assert Effort().of(CHOICE) == CHOICE and CHOICE.screening == 24
    small = Effort(images=8, steps=5).of(CHOICE)
    assert small == replace(CHOICE, images=8, screening=8, sampling=replace(CHOICE.sampling, steps=5))
    assert Effort(images=60).of(CHOICE) == replace(CHOICE, images=60)


class Counts:
    """Sees a cat in every other picture and a dog in the rest, and counts them."""

    name, version, labels = "counts", "1", ("cat", "dog", "none")

    def __init__(self):
        self.seen = 0

    def probabilities(self, images):
        self.seen += len(images)
        return torch.eye(3)[(torch.arange(len(images)) + 1) % 2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:chosen", "ignore:.*counts for nothing")
def test_a_screening_makes_as_many_answers_as_are_asked_for():
    subject, counts = tiny_sd(), {}
    untouched = {name: Edit(name, "cat", {}, subject.weight_hash()) for name in "abcd"}
    for screening in (2, 6):
        looks = Counts()
        asked = Selection(images=2, screening=screening, sampling=Sampling(steps=1))
        choice = choose(untouched, subject, tiny_concept(), recogniser=looks, selection=asked)
        assert len(choice.screened) == 4
        counts[screening] = looks.seen
    more = [len(t.forget) + len(t.retain) for t in (panel(tiny_concept(), images=n, others=n * 4 // 3) for n in (2, 6))]
    assert counts[6] - counts[2] == 5 * (more[1] - more[0]) > 0


def test_the_threads_of_every_verb_that_computes_can_be_said():
    from typer.main import get_command

    verbs = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    for name in ("run", "capture", "train", "browse", "find", "erase", "attack", "audit", "bench", "calibrate"):
        assert "threads" in {option.name for option in verbs[name].params}, name
    assert "threads" in {option.name for option in verbs["testbed"].commands["train"].params}
    before = torch.get_num_threads()
    try:
        shown = CliRunner().invoke(app, ["train", "nowhere", "--output", "nowhere/x", "--threads", str(before + 1)])
        assert shown.exit_code == 2 and torch.get_num_threads() == before + 1
        assert CliRunner().invoke(app, ["train", "nowhere", "--output", "x", "--threads", "0"]).exit_code == 2
    finally:
        torch.set_num_threads(before)
