"""Several concepts in one erasure: what is put together, what is fitted for each, and what is refused."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

import concept_probe as cp
from concept_probe.concepts import save_concept
from concept_probe.concepts.united import united
from concept_probe.erasers import AblateVectors, Blocklist, DifferenceOfMeans, Leace, Rlace, Speed, Uce
from concept_probe.erasers.effect import with_effect
from concept_probe.find.directions.leace import concept_indicators, fit_leace
from concept_probe.find.directions.projection import contrast_directions, rows_to_fit
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.found import aimed_columns
from concept_probe.testing.models import TINY_MODELS
from concept_probe.types import FORGET_KINDS, KINDS, SPLITS, Concept, Splits

CAT = tiny_concept()


def about(word: str, label: str | None = None) -> Concept:
    """The sentences of a cat, about something else; a dog is its neighbour too."""

    def renamed(splits: Splits) -> Splits:
        each = (
            tuple(replace(p, text=p.text.replace("cat", word), subject=word, label=label or word) for p in of)
            for of in (splits.fit, splits.select, splits.test)
        )
        return Splits(*each)

    return replace(CAT, name=word, target=renamed(CAT.target), paraphrases=Splits(), implicit=Splits())


SUN, PEN = about("sun"), about("pen")


@pytest.fixture(scope="module")
def subject():
    return TINY_MODELS["sd"]()


def test_prompts_are_taken_in_turn_and_nobody_keeps_what_another_erases():
    both = united([CAT, SUN])
    assert both.name == "cat+sun" and both.parts == (CAT, SUN)
    for split in SPLITS:
        firsts = [CAT.prompts("target", split)[0], SUN.prompts("target", split)[0]]
        assert list(both.prompts("target", split)[:2]) == firsts
        assert {p for kind in FORGET_KINDS for p in both.prompts(kind, split)} == {
            p for part in (CAT, SUN) for kind in FORGET_KINDS for p in part.prompts(kind, split)
        }
        assert not [p for p in both.prompts("unrelated", split) if p.label in ("cat", "sun")], "the sun is not kept"
        assert both.prompts("neighbours", split), "the dog is"
    assert any(p.label == "sun" for p in CAT.unrelated.fit), "it would have been"
    assert both.examples is not None and len(both.examples) == 8
    assert united([united([CAT, SUN]), PEN]) == united([CAT, SUN, PEN])
    assert united([CAT]) is CAT


def test_what_can_not_be_put_together_is_refused(subject, tmp_path):
    with pytest.raises(ValueError, match="no concept was given"):
        united([])
    with pytest.raises(ValueError, match="two of 2 concepts are called 'cat'"):
        united([CAT, CAT])
    with pytest.raises(ValueError, match="differ in size"):
        united([CAT, replace(SUN, examples=torch.zeros(1, 3, 8, 8))])
    both = united([CAT, SUN])
    with pytest.raises(ValueError, match="ask for each of its `parts`"):
        _ = both.label
    with pytest.raises(ValueError, match="save each"):
        save_concept(both, tmp_path / "both.json")
    with pytest.raises(ValueError, match="'sun' has no anchor"):
        Uce().together(subject, [CAT, replace(SUN, anchor=Splits())])
    with pytest.raises(TypeError, match="erase got a str in the place of a Concept"):
        cp.erase("uce", subject, [CAT, "sun"])  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.mark.parametrize("eraser", [Uce(), Speed(null=0.9)], ids=lambda e: e.name)
def test_the_order_of_concepts_does_not_matter_to_a_closed_form(subject, eraser):
    site = subject.sites("cross_value_weight")[0]

    def edited(order: list[Concept]) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is left on so few random states is not the point
            edit = eraser.together(subject, order)
        with edit.on(subject):
            return subject.parameter(site).detach().clone()

    one, other, before = edited([CAT, SUN]), edited([SUN, CAT]), subject.parameter(site).detach()
    assert float((one - before).abs().max()) > 1e-3 * float(before.abs().max())
    assert float((one - other).abs().max()) < 1e-4 * float((one - before).abs().max())


def test_one_solve_answers_both_and_two_added_solves_answer_neither_as_well(subject):
    """Each of two edits that were made alone leaves the other's tokens where they were; added they overshoot."""
    method = Uce(policy="last_subject", sources=("target",), lam=1e-4)
    both = method.together(subject, [CAT, SUN])
    added = cp.erasers.combine([method(subject, c) for c in (CAT, SUN)])
    gap = both.made_by["gap_left"]
    assert gap < 0.2
    asked = [p for c in (CAT, SUN) for p in c.target.fit]

    def said(edit) -> torch.Tensor:
        site = subject.sites("cross_value_weight")[0]
        with edit.on(subject):
            weight = subject.parameter(site).detach()
            return torch.cat([s @ weight.T for s in subject.encode(asked).states])

    assert not torch.allclose(said(both), said(added), atol=1e-4)


def test_directions_are_fitted_for_each_concept(subject):
    site = subject.sites("text_out")[0]
    both = united([CAT, SUN])
    rows = rows_to_fit(subject, both, [site])[site][0]
    kinds = len(rows_to_fit(subject, CAT, [site])[site][0].both_sides())
    assert len(rows.both_sides()) == 2 * kinds == contrast_directions(rows).shape[1]
    for (own, others), part in zip(rows.both_sides(), [0, 1] * kinds, strict=True):
        assert rows.part is not None and (rows.part[own] == part).all() and (rows.part[others] == -1).all()
    indicators = concept_indicators(rows)
    assert indicators.shape[1] == 2 * kinds
    projection = fit_leace(rows.x, indicators)
    gone = projection(rows.x.double())
    cross = (gone - gone.mean(0)).mT @ (indicators - indicators.mean(0)) / len(gone)
    before = (rows.x.double() - rows.x.double().mean(0)).mT @ (indicators - indicators.mean(0)) / len(gone)
    assert float(cross.abs().max()) < 1e-6 * float(before.abs().max()), "no linear reader sees either"
    one = concept_indicators(rows_to_fit(subject, CAT, [site])[site][0])
    assert one.shape[1] == kinds, "of one concept there are as many as before"


@pytest.mark.parametrize("eraser", [DifferenceOfMeans(), Leace(), Rlace.tiny()], ids=lambda e: e.name)
def test_a_projection_of_two_concepts_has_the_directions_of_both(subject, eraser):
    ranks = [
        sum(eraser.together(subject, concepts).made_by["ranks"].values()) for concepts in ([CAT], [SUN], [CAT, SUN])
    ]
    assert max(ranks[:2]) < ranks[2] <= ranks[0] + ranks[1]


def test_a_guard_knows_the_names_of_all(subject):
    guard = Blocklist().together(subject, [CAT, SUN])
    assert set(guard.made_by["options"]["names"]) == {"cat", "sun"}


def test_a_concept_of_several_is_erased_by_a_call_too(subject):
    edit = cp.erase(Uce(), subject, [CAT, SUN])
    assert edit.concept == "cat+sun" and edit.made_by["effect"].keys() == {"cat", "sun"}
    for part in ("cat", "sun"):
        assert edit.made_by["effect"][part]["target_moved"] > 0
    with pytest.warns(UserWarning, match="of 'pen'"):
        told = with_effect(Uce(strength=1e-30)(subject, CAT), subject, united([CAT, PEN]))
    assert {p for kind in KINDS for p in united([CAT, PEN]).prompts(kind, "select")}
    assert told.made_by["effect"]["pen"]["target_moved"] == 0


def test_what_was_found_for_one_of_two_concepts_is_not_enough(subject):
    """The edit would bear the name of both, and leave one as it was."""
    own = aimed_columns(subject, CAT)
    with pytest.raises(ValueError, match=r"were found for 'cat', and none for 'sun'"):
        AblateVectors().together(subject, [CAT, SUN], own)
    with pytest.raises(ValueError, match=r"were found for 'cat', and none for 'sun'"):
        AblateVectors()(subject, united([CAT, SUN]), own)
    others = [replace(space, concept="sun") for space in own]
    assert AblateVectors().together(subject, [CAT, SUN], [*own, *others]).concept == "cat+sun"
    assert AblateVectors().together(subject, [CAT, SUN], [replace(x, concept="cat+sun") for x in own]).deltas
