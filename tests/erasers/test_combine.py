"""Several concepts out of one subject: side by side with `combine`, one after the other with `then` or `bake`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.erasers import Edit, LowRank, Memit, Needle, Rocr, Uce, WrongBase, combine
from concept_probe.families import Subject
from concept_probe.testing.concepts import tiny_concept, tiny_facts
from concept_probe.testing.found import aimed_columns
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE, tiny_llama
from concept_probe.types import Concept, Splits

CAT, TUB = tiny_facts(), tiny_facts("tub", "low wall")
SECOND = replace(tiny_concept(), name="dog", target=tiny_concept().neighbours, neighbours=Splits())


def pair(name: str) -> tuple[Subject, Edit, Edit]:
    """Two edits, made on one subject, that share parameters."""
    if name == "pictures":
        subject = tiny_sd()
        return subject, Uce()(subject, tiny_concept()), Uce()(subject, SECOND)
    subject = LANGUAGE[name]()
    return subject, Needle(steps=1)(subject, CAT, aimed_columns(subject, CAT)), Rocr()(subject, TUB)


def weights(subject: Subject) -> dict[str, torch.Tensor]:
    return {f"{c}/{n}": p.detach().clone() for c, m in subject.components.items() for n, p in m.named_parameters()}


@pytest.mark.parametrize("name", [*LANGUAGE, "pictures"])
def test_combined_edits_change_by_the_sum_of_both(name, tmp_path):
    subject, first, second = pair(name)
    base, hashed = weights(subject), subject.weight_hash()
    moved = []
    for edit in (first, second, combine([first, second])):
        with edit.on(subject):
            moved.append({where: x - base[where] for where, x in weights(subject).items()})
    shared = first.deltas.keys() & second.deltas.keys()
    assert shared and all(bool(x.any()) for x in (moved[0][w.replace(":", ".")] for w in shared))
    for where, both in moved[2].items():
        torch.testing.assert_close(both, moved[0][where] + moved[1][where], atol=1e-5, rtol=1e-4)
    both = combine([first, second])
    assert both.base_hash == hashed == subject.weight_hash()
    read = Edit.load(both.save(tmp_path))
    assert read.describe() == both.describe()
    with both.on(subject):
        during = subject.weight_hash()
    with read.on(subject):
        assert subject.weight_hash() == during
    both.bake(subject)
    assert subject.weight_hash() == during


def test_order_and_nesting_change_nothing_beyond_rounding():
    subject, first, second = pair("llama")
    third = Memit(steps=2)(subject, CAT)
    one = combine([combine([first, second]), third])
    other = combine([third, second, first])
    with one.on(subject):
        left = weights(subject)
    with other.on(subject):
        for where, x in weights(subject).items():
            torch.testing.assert_close(x, left[where], atol=1e-5, rtol=1e-5)
    assert other.concept == "cat+tub" and other.name == "memit+rocr+needle"


def test_what_both_were_told_is_kept_for_the_audit():
    _, first, second = pair("llama")
    both = combine([first, second])
    seen = [both.made_by["parts"][i]["prompts_seen"] for i in ("0", "1")]
    assert seen == [first.made_by["prompts_seen"], second.made_by["prompts_seen"]] and seen[0] != seen[1]
    assert isinstance(both.describe()["made_by"]["parts"]["0"]["prompts_seen"], int)


def test_edits_of_different_weights_are_refused():
    subject, first, second = pair("llama")
    with first.on(subject):
        on_top = Rocr()(subject, TUB)
    with pytest.raises(WrongBase, match=r"made for different weights .*first\.then\(second, subject\)"):
        combine([first, on_top])
    with pytest.raises(WrongBase, match="made for different weights"):
        combine([first, Rocr()(tiny_llama(seed=1), TUB)])
    with pytest.raises(ValueError, match="no edit was given"):
        combine([])
    with combine([second]).on(subject):
        alone = subject.weight_hash()
    with second.on(subject):
        assert subject.weight_hash() == alone


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gpt2", "pictures"])
def test_one_after_the_other_is_one_edit_and_what_baking_gives(name):
    """The second is made where the first is: inside its `on`, or on a subject that it was baked into."""
    subject, first, _ = pair(name)
    again: Subject = pair(name)[0]

    def make(one: Subject) -> Edit:
        of: Concept = SECOND if name == "pictures" else TUB
        return (Uce() if name == "pictures" else Rocr())(one, of)

    with first.on(subject):
        second = make(subject)
        with second.on(subject):
            expected = subject.weight_hash()
    with first.then(second, subject).on(subject):
        assert subject.weight_hash() == expected
    first.bake(again)
    baked = make(again)
    assert baked.base_hash == second.base_hash == again.weight_hash() != first.base_hash
    baked.bake(again)
    assert again.weight_hash() == expected
    with pytest.raises(WrongBase, match="nothing was applied"), second.on(subject):
        pytest.fail("the block must not run")


def test_an_edit_of_nothing_adds_nothing():
    subject, first, second = pair("llama")
    with combine([first, second.scaled(0)]).on(subject):
        found = subject.weight_hash()
    with first.on(subject):
        assert subject.weight_hash() == found
    assert all(isinstance(d, LowRank) for d in second.deltas.values())
