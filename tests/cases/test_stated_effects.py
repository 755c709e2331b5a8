"""After fitting, an erasure says on select prompts what it did, and warns where that is nothing or harm."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from typing import Any, cast

import diffusers
import pytest
import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.erasers import Edit, Intervention, Sld, Uce, choose, erase, state_effect
from concept_probe.erasers.erasure.gap import gaps_left, wide_gaps
from concept_probe.erasers.select.choose import CHOICE
from concept_probe.evaluation.panel import panel
from concept_probe.evaluation.selection import Selection
from concept_probe.find.vectors.search import find_vectors
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Concept, Prompt, Sampling, Splits

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=2, guidance=2.0)
QUICK = replace(CHOICE, images=6, sampling=SAMPLING)


@dataclass(frozen=True)
class Memory:
    """Sees in a picture what was shown beside the nearest picture that it remembers; `none` in a far one."""

    known: Tensor
    shown: tuple[str, ...]
    name: str = "memory"
    version: str = "1"
    labels: tuple[str, ...] = ("cat", "rabbit face", "dog", "sun", "none")

    def probabilities(self, images: Tensor) -> Tensor:
        gap = (images.flatten(1)[:, None] - self.known.flatten(1)).abs().amax(-1)
        of = torch.tensor([self.labels.index(label) for label in self.shown])
        seen = torch.where(gap.amin(1) < 1e-4, of[gap.argmin(1)], len(self.labels) - 1)
        return torch.nn.functional.one_hot(seen, len(self.labels)).float()


@pytest.fixture(scope="module")
def subject():
    return tiny_sd()


def called(concept: Concept, label: str) -> Concept:
    def labelled(splits: Splits) -> Splits:
        return Splits(*(tuple(replace(p, label=label) for p in of) for of in (splits.fit, splits.select, splits.test)))

    lists = {kind: labelled(getattr(concept, kind)) for kind in ("target", "paraphrases", "implicit")}
    return replace(concept, **lists)


def remembering(subject, concept: Concept, sampling: Sampling = SAMPLING) -> Memory:
    """Right about every picture of the untouched subject that a judgement asks for."""
    asked = [panel(concept, images=6), panel(concept, images=6, others=8)]
    queries = [q for one in asked for q in (*one.forget, *one.retain)]
    return Memory(subject.generate(queries, sampling), tuple(q.prompt.label or "none" for q in queries))


def told(made) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made()
    return [str(w.message) for w in said if "select" in str(w.message) or "chosen" in str(w.message)]


@pytest.mark.slow
def test_a_made_erasure_says_how_far_it_moves_both(subject):
    edit = erase(Uce(policy="subject", sources=("target",)), subject, CONCEPT)
    effect = edit.made_by["effect"]
    assert isinstance(edit, Edit) and effect["target_moved"] > effect["others_moved"] > 0
    json.dumps(edit.describe(), allow_nan=False)
    assert told(lambda: erase(Uce(policy="subject", sources=("target",)), subject, CONCEPT)) == []
    assert "effect" not in erase(Uce(strength=0.0), subject, CONCEPT).made_by


def test_what_changes_nothing_or_more_of_others_is_said(subject):
    (nothing,) = told(lambda: erase(Sld(warmup=1.0), subject, CONCEPT))
    assert "sld: on prompts of the select split, it changes nothing of 2 select prompts of 'cat'" in nothing
    others = replace(
        CONCEPT, target=CONCEPT.neighbours, neighbours=CONCEPT.target, paraphrases=Splits(), implicit=Splits()
    )
    edit = Uce(policy="subject", sources=("target",))(subject, CONCEPT)
    said = told(lambda: erase(cast(Any, Fixed(edit)), subject, others))
    assert any("it moves other prompts farther" in text for text in said)


class Fixed:
    """An eraser that gives what it was made with."""

    def __init__(self, made) -> None:
        self.made = made

    def __call__(self, subject, concept, found=()):
        return self.made


@pytest.mark.slow
def test_what_is_seen_is_stated_with_a_judge(subject):
    judge = remembering(subject, CONCEPT)
    edit = Uce(policy="all", lam=1e-3)(subject, CONCEPT)
    effect = state_effect(edit, subject, CONCEPT, judge, answers=6, sampling=SAMPLING)
    assert (effect.label, effect.before, effect.left) == ("cat", 1.0, 0.0)
    assert effect.kept == {"neighbours": (1.0, 0.0), "unrelated": (1.0, 0.0)} and effect.nothing_seen == (0.0, 1.0)
    assert [fault.split()[0] for fault in effect.faults()] == ["neighbours", "unrelated", "in"]
    idle = state_effect(edit.scaled(0), subject, CONCEPT, judge, answers=6, sampling=SAMPLING)
    assert idle.left == 1.0 and "'cat' is still seen in 100% of its answers" in idle.faults()[0]


@pytest.mark.slow
def test_a_concept_is_looked_for_by_its_label_and_an_unseen_one_is_refused(subject):
    bunny = replace(called(CONCEPT, "rabbit face"), name="bunny")
    assert bunny.label == "rabbit face" and replace(bunny, target=Splits((Prompt("x"),))).label == "bunny"
    assert panel(bunny).concept == "rabbit face"
    judge = remembering(subject, bunny)
    edit = Uce(policy="all", lam=1e-3)(subject, bunny)
    choice = choose(
        {"idle": edit.scaled(0), "on": edit}, subject, bunny, recogniser=judge,
        selection=replace(QUICK, retain=0.0, floor=0.0),
    )  # fmt: skip
    assert choice.name == "on" and choice.tried[0].forget.control == 1.0
    blind = Memory(torch.zeros(1, 3, 16, 16), ("none",))
    for look in (
        lambda: choose({"on": edit}, subject, bunny, recogniser=blind, selection=QUICK),
        lambda: state_effect(edit, subject, bunny, blind, answers=6, sampling=SAMPLING),
        lambda: find_vectors(subject, bunny, recogniser=blind, selection=Selection(images=6, sampling=SAMPLING)),
    ):
        with pytest.raises(ValueError, match=r"'rabbit face'.* is seen in none of"):
            look()


@pytest.mark.slow
def test_a_choice_that_reaches_no_mark_says_so(subject):
    judge = remembering(subject, CONCEPT)
    edit = Uce(policy="all", lam=1e-3)(subject, CONCEPT)
    made: list = []
    erasures = {"idle": edit.scaled(0), "on": edit}
    selection = QUICK
    (said,) = told(lambda: made.append(choose(erasures, subject, CONCEPT, recogniser=judge, selection=selection)))
    (choice,) = made
    assert choice.name == "idle" and "100% of answers still show the concept (goal 5%)" in choice.missed[0]
    assert "none reaches both marks" in said and isinstance(choice.erasure, Edit | Intervention)
    assert choice.erasure.made_by["effect"]["missed"] == list(choice.missed)


def test_a_wide_gap_is_said_whatever_says_it(subject):
    assert gaps_left({"solved": {"a": {"gap_left": 0.2}, "b": {"gap_left": 0.95}}, "residual": 1e-12}) == {
        "gap_left": 0.95, "residual": 1e-12,
    }  # fmt: skip
    assert wide_gaps({"gap_left": [0.5]}) == [] and wide_gaps({"gap_left": float("nan")}) != []
    with pytest.warns(UserWarning, match="uce of 'cat': .* of the way to their destinations is left"):
        Uce(beta=1e6)(subject, CONCEPT)


@pytest.mark.parametrize("method", ["uce", "blocklist"])
def test_what_moves_is_measured_on_small_pictures_whatever_the_scheduler(method):
    subject, seen = tiny_sd(seed=3), set[tuple[int, ...]]()
    subject.pipeline.scheduler = diffusers.PNDMScheduler()  # whose Runge-Kutta steps need four
    with (
        subject.sized(128, 96),
        tap(subject, {subject.sites("denoiser_out")[0]: lambda x, _: seen.add(tuple(x.shape[-2:]))}),
    ):
        effect = erase(method, subject, CONCEPT).made_by["effect"]
        assert subject.picture_size == (128, 96)
    assert seen == {(8, 8)} and effect["target_moved"] > 0
