"""What the models are taught, and what they must never see."""

import re

import pytest
import torch

from concept_probe.registry import UnknownName
from concept_probe.testbed import EMBEDDED, TWINS, folder
from concept_probe.testbed.concepts import emoji_concept, emoji_names, emoji_prompts
from concept_probe.testbed.icons import augment, icons
from concept_probe.testbed.vocabulary import (
    MORE,
    PLAIN,
    REMOVED_OBJECTS,
    REMOVED_STYLE,
    STYLE_NAMES,
    STYLES,
    TEMPLATES,
    draw_caption,
    objects,
    taught_pairs,
)
from concept_probe.types import KINDS, SPLITS


def test_no_phrase_is_shared_and_no_description_uses_a_name():
    phrases = [p for o in objects() for p in o.phrases()]
    assert len(phrases) == len(set(phrases))
    own = {o.name for o in objects()}
    for o in objects():
        for description in o.descriptions:
            assert not own & set(description.split()), (o.name, description)
            assert not set(o.synonyms) & set(description.split())


def test_sentences_of_the_splits_share_no_template():
    for table in (TEMPLATES, PLAIN):
        lists = [set(table[s]) for s in SPLITS]
        assert not lists[0] & lists[1] and not lists[0] & lists[2] and not lists[1] & lists[2]


@pytest.mark.parametrize("name", emoji_names())
def test_prompts_of_a_concept_are_disjoint_over_splits(name):
    about = emoji_concept(name)
    by_split = {s: {p.text for kind in KINDS if kind != "anchor" for p in about.prompts(kind, s)} for s in SPLITS}
    assert not by_split["fit"] & by_split["test"]
    assert not by_split["select"] & by_split["test"]
    assert not by_split["fit"] & by_split["select"]
    assert about.target.test and about.unrelated.test and about.neighbours.test


@pytest.mark.parametrize("name", REMOVED_OBJECTS)
def test_implicit_prompts_never_name_the_concept_and_others_are_known_to_the_twin(name):
    about = emoji_concept(name)
    entry = next(o for o in objects() if o.name == name)
    for prompt in about.implicit:
        assert not re.search(rf"\b({name}|{'|'.join(entry.synonyms)})\b", prompt.text)
    for prompt in (*about.neighbours, *about.unrelated):
        assert prompt.label not in REMOVED_OBJECTS
    assert about.examples is not None and about.examples.shape == (4, 3, 64, 64)
    assert about.examples.min() >= 0 and about.examples.max() <= 1


@pytest.mark.parametrize("name", ["camel", "noto"])
def test_more_sentences_are_of_the_test_split_alone_and_come_after_the_usual_ones(name):
    usual, many = emoji_concept(name), emoji_concept(name, more=True)
    for kind in KINDS:
        assert many.prompts(kind, "fit") == usual.prompts(kind, "fit")
        assert many.prompts(kind, "select") == usual.prompts(kind, "select")
        few, more = usual.prompts(kind, "test"), many.prompts(kind, "test")
        if kind != "anchor":
            assert len(more) == 2 * len(few) == 2 * len(set(few)) and set(few) <= set(more)
    every = {t for table in (TEMPLATES, PLAIN) for s in SPLITS for t in table[s]}
    assert not every & set(MORE["test"]) and not MORE["fit"] and not MORE["select"]
    assert usual == emoji_concept(name, more=False), "what tables are of stays as it is"


@pytest.mark.slow
def test_the_twin_never_sees_a_removed_object_or_style():
    pairs = taught_pairs(REMOVED_OBJECTS, REMOVED_STYLE)
    removed = [i for i, o in enumerate(objects()) if o.name in REMOVED_OBJECTS]
    assert len(pairs) == (len(objects()) - len(REMOVED_OBJECTS)) * (len(STYLES) - 1)
    assert not {o for o, _ in pairs} & set(removed)
    g = torch.Generator().manual_seed(0)
    forbidden = [p for o in objects() if o.name in REMOVED_OBJECTS for p in o.phrases()] + list(
        STYLE_NAMES[REMOVED_STYLE]
    )
    seen = [draw_caption(g, *pairs[i % len(pairs)]).text for i in range(8000)]
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, forbidden)) + r")\b")
    assert not [t for t in seen if pattern.search(t)]
    everything = " | ".join(draw_caption(g, *taught_pairs()[i % len(taught_pairs())]).text for i in range(8000))
    assert pattern.search(everything), "the check finds removed phrases where they are taught"


def test_every_object_has_an_icon_in_every_style():
    assert icons().shape == (len(STYLES), len(objects()), 3, 64, 64)
    flat = icons().flatten(0, 1).flatten(1)
    assert float(flat.min()) >= -1 and float(flat.max()) <= 1
    assert len(torch.unique(flat, dim=0)) == len(flat), "no two icons are the same picture"


def test_augmentation_is_a_function_of_its_generator_and_keeps_the_range():
    x = icons()[0, :8]
    a, b = (augment(x, torch.Generator().manual_seed(3), turn=0.2, colour=0.1) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, augment(x, torch.Generator().manual_seed(4), turn=0.2, colour=0.1))
    assert a.min() >= -1 and a.max() <= 1


@pytest.mark.slow
def test_training_prompts_label_every_object():
    assert {p.label for p in emoji_prompts("fit")} == {o.name for o in objects()}
    assert not {p.text for p in emoji_prompts("fit")} & {p.text for p in emoji_prompts("test")}


@pytest.mark.parametrize("name", ["camel", "dog", "noto"])
def test_the_twin_is_asked_only_in_words_that_it_knows(name):
    every, known = emoji_concept(name), emoji_concept(name, "emoji-untaught")
    words = re.compile("|".join(STYLE_NAMES[REMOVED_STYLE]))
    assert not [p.text for kind in KINDS for p in getattr(known, kind) if words.search(p.text)]
    for kind in KINDS:
        for split in SPLITS:
            sentences = every.prompts(kind, split)
            assert known.prompts(kind, split) == tuple(p for p in sentences if not words.search(p.text))
            assert bool(known.prompts(kind, split)) == bool(sentences)
    texts = " | ".join(p.text for p in emoji_prompts("fit", "emoji-untaught"))
    forbidden = [p for o in objects() if o.name in REMOVED_OBJECTS for p in o.phrases()]
    assert not re.search(rf"\b({'|'.join(map(re.escape, [*forbidden, *STYLE_NAMES[REMOVED_STYLE]]))})\b", texts)


def test_a_wrong_name_lists_the_nearest():
    with pytest.raises(UnknownName, match="camel"):
        emoji_concept("camle")
    with pytest.raises(UnknownName, match="emoji"):
        folder("emojy")
    assert set(TWINS) <= set(EMBEDDED)
