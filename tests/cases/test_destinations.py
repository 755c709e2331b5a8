"""Which prompt each prompt of a concept is led to: by place, whole words, whatever words it shares with others."""

from __future__ import annotations

import pytest
import torch

from concept_probe.erasers import Uce
from concept_probe.erasers.closed_form.alignment import align
from concept_probe.erasers.closed_form.destinations import destinations_of
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Concept, Prompt, Splits

BOS, CONTENT, SUBJECT, EOS, PAD = range(5)


def led(prompts: list[Prompt], guide: str | None, anchors: tuple[Prompt, ...] = ()) -> list[str]:
    concept = Concept("cat", Splits(tuple(prompts)), anchor=Splits(anchors))
    return [destination.text for destination in destinations_of(prompts, concept, guide, "uce").values()]


def cats(*texts: str) -> list[Prompt]:
    return [Prompt(text, "cat") for text in texts]


def plain(*texts: str) -> tuple[Prompt, ...]:
    return tuple(map(Prompt, texts))


@pytest.mark.parametrize("texts", [("a red cat", "cat"), ("cat", "a red cat")])
def test_the_order_of_prompts_and_the_words_of_the_guide_decide_nothing(texts):
    assert led(cats(*texts), "dog") == [text.replace("cat", "dog") for text in texts]


def test_words_are_taken_whole_and_in_any_case():
    assert led(cats("a cat in a catalogue", "A Cat, the CAT"), "dog") == ["a dog in a catalogue", "A dog, the dog"]
    assert led([Prompt("art by X", "X"), Prompt("a painting by X", "X")], "painting") == [
        "art by painting", "a painting by painting",
    ]  # fmt: skip
    assert led([*cats("a cat"), Prompt("it purrs")], "") == ["a", ""]


def test_as_many_anchors_are_paired_by_place():
    assert led(cats("a cat", "a red cat"), None, plain("a red dog", "a dog")) == ["a red dog", "a dog"]
    concept = Concept(
        "cat", Splits(tuple(cats("a cat", "cat"))), Splits(plain("kitty", "a kitty")), anchor=Splits(plain("a", "b"))
    )
    prompts = [*concept.target.fit, *concept.paraphrases.fit]
    assert [p.text for p in destinations_of(prompts, concept, None, "uce").values()] == ["a", "b", "a", "b"]
    assert [p.text for p in destinations_of(prompts[3:], concept, None, "uce").values()] == ["b"]


def test_else_words_outside_the_subjects_decide():
    anchors = (Prompt("a cat thing", "cat thing"), Prompt("the thing in the sun", "thing"), *plain("a red thing"))
    texts = ("a cat", "a cat, in the sun", "red cat", "cat nothing alike")
    assert led(cats(*texts), None, anchors) == [anchors[i].text for i in (0, 1, 2, 0)]


def test_what_leads_nowhere_is_refused():
    with pytest.raises(ValueError, match="guide ' cat ' leads every prompt to itself, as 'a cat'"):
        led(cats("a cat", "the cat"), " cat ")
    with pytest.raises(ValueError, match="no anchor prompts"):
        led(cats("a cat"), None)


@pytest.mark.parametrize(
    ("text", "word"), [("a catalogue", "catalogue"), ("a bobcat", "bobcat"), ("a wildcats", "wildcats")]
)
def test_a_subject_inside_another_word_is_refused(text, word):
    with pytest.raises(ValueError, match=f"only inside the word '{word}'"):
        led(cats(text), "dog")


def test_plurals_and_scripts_without_spaces_are_renamed_and_case_is_no_other_thing():
    assert led([*cats("two cats"), Prompt("\u4e24\u53ea\u732b\u5728\u7761", "\u732b")], "dog") == [
        "two dogs", "\u4e24\u53eadog\u5728\u7761",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="guide 'Cat' leads every prompt to itself"):
        led(cats("a cat", "the cat"), "Cat")


def test_each_mention_goes_to_its_own():
    own = torch.tensor([BOS, SUBJECT, CONTENT, SUBJECT, EOS])
    twice = torch.tensor([BOS, SUBJECT, SUBJECT, CONTENT, SUBJECT, SUBJECT, EOS])
    assert align(own, twice, "subject") == [(1, 2), (3, 5)]
    # "a cat with a dog" to "a dog with a dog": the destination says its subject once more, behind or before.
    named = torch.tensor([BOS, CONTENT, SUBJECT, CONTENT, CONTENT, SUBJECT, EOS])
    first = torch.tensor([BOS, CONTENT, SUBJECT, CONTENT, CONTENT, CONTENT, EOS])
    assert align(first, named, "subject") == [(2, 2)]
    last = torch.tensor([BOS, CONTENT, CONTENT, CONTENT, CONTENT, SUBJECT, EOS])
    assert align(last, named, "subject") == [(5, 5)]


def test_an_edit_says_which_destination_each_prompt_has():
    made = Uce(guide="dog", sources=("target",))(tiny_sd(), tiny_concept()).made_by
    assert made["guides"] == {p.text: p.text.replace("cat", "dog") for p in tiny_concept().target.fit}
