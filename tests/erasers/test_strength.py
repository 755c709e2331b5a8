"""The strength of an erasure of a language model: the gentlest that removes answers and keeps the rest."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any, cast

import pytest

from concept_probe import detect
from concept_probe.erasers import Edit, choose_strength
from concept_probe.erasers.select import strength as module
from concept_probe.erasers.select.strength import written_panel
from concept_probe.testing.concepts import tiny_quiz

CONCEPT = tiny_quiz()
LOOKS = detect.judge_for(CONCEPT)
EDIT = Edit("npo", "cat", {}, "hash")


class Writes:
    """Says right answers to a share of the concept's prompts, and of the others, that depends on the strength."""

    def __init__(self, left: dict[float, float], kept: dict[float, float]) -> None:
        self.left, self.kept, self.strength, self.asked = left, kept, 0.0, []

    def generate(self, queries, sampling):
        own = queries[0].prompt.label == "cat"
        share = {0.0: 1.0, **(self.left if own else self.kept)}[self.strength]
        self.asked.append(self.strength)
        return [q.prompt.answers[0] if i < share * len(queries) else "" for i, q in enumerate(queries)]


@pytest.fixture
def chosen(monkeypatch):
    """What is chosen for a subject that answers so; four prompts of each list."""

    def run(left: dict[float, float], kept: dict[float, float], **more):
        subject: Any = Writes(left, kept)

        class Scaled:
            name = "npo"

            def scaled(self, factor):
                @contextlib.contextmanager
                def on(_):
                    subject.strength = factor
                    yield
                    subject.strength = 0.0

                return SimpleNamespace(on=on, factor=factor)

        tested = written_panel(CONCEPT, 4, 0)
        gone = tuple(q for q in tested.forget[:1] for _ in range(4))
        stay = tuple(q for q in tested.retain[:1] for _ in range(4))
        monkeypatch.setattr(module, "written_panel", lambda *_: module.Panel(gone, stay, "cat"))
        choice = choose_strength(subject, CONCEPT, cast(Any, Scaled()), recogniser=LOOKS, strengths=(2, 0.5, 1), **more)
        return choice, subject

    return run


def test_the_gentlest_that_reaches_both_marks_and_no_stronger_one_is_tried(chosen):
    choice, subject = chosen({0.5: 0.5, 1: 0.0, 2: 0.0}, {0.5: 1, 1: 1, 2: 1})
    assert choice.name == "npo x 1" and cast(Any, choice.erasure).factor == 1
    assert [t.name for t in choice.tried] == ["npo x 0.5", "npo x 1"] and 2 not in subject.asked
    assert [t.residual() for t in choice.tried] == [0.5, 0] and choice.tried[0].forget.control == 1


def test_the_step_at_which_others_fall_is_halved_and_nothing_stronger_is_tried(chosen):
    """At 0.75 others still stand, so the next middle is 0.875, where they do not; the best that keeps them is taken."""
    left = {0.5: 0.75, 0.75: 0.5, 0.875: 0.25, 1: 0.0}
    choice, subject = chosen(left, {0.5: 1, 0.75: 1, 0.875: 0.75, 1: 0.5})
    assert [t.name.split()[-1] for t in choice.tried] == ["0.5", "1", "0.75", "0.875"] and 2 not in subject.asked
    assert choice.name == "npo x 0.75" and cast(Any, choice.erasure).factor == 0.75
    done, _ = chosen({**left, 0.75: 0.0}, {0.5: 1, 0.75: 1, 1: 0.5})
    assert done.name == "npo x 0.75" and len(done.tried) == 3  # both marks are reached: it is enough


def test_where_all_lose_too_much_the_one_that_keeps_most_is_taken(chosen):
    kept = {0.125: 0.75, 0.25: 0.5, 0.5: 0.25}
    choice, _ = chosen(dict.fromkeys(kept, 0.0), kept)
    assert choice.name == "npo x 0.125" and [t.name.split()[-1] for t in choice.tried] == ["0.5", "0.25", "0.125"]


def test_the_panel_is_of_the_select_split_and_asks_nothing_twice():
    tested = written_panel(CONCEPT, 4, 0)
    assert {q.prompt for q in tested.forget} == set(CONCEPT.target.select) | set(CONCEPT.paraphrases.select)
    assert {q.prompt for q in tested.retain} == set(CONCEPT.neighbours.select) | set(CONCEPT.unrelated.select)
    assert len(set(tested.forget)) == len(tested.forget) and tested.forget_lists == (0, 1) and tested.concept == "cat"


def test_what_can_not_be_chosen_is_refused():
    with pytest.raises(ValueError, match="give some above 0"):
        choose_strength(cast(Any, None), CONCEPT, EDIT, recogniser=LOOKS, strengths=())
    bare = CONCEPT.__class__("cat", CONCEPT.target)
    with pytest.raises(ValueError, match="lacks prompts with answers and labels"):
        written_panel(bare, 4, 0)
