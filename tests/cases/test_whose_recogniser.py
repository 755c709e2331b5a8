"""A recogniser judges the pictures that it was made for; others need one that is named."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

import concept_probe as cp
from concept_probe import detect
from concept_probe.auditing.checks import judge_of
from concept_probe.detect.recipe import is_of_recipe
from concept_probe.families import load
from concept_probe.find import find_vectors
from concept_probe.registry import UnknownName
from concept_probe.testing.concepts import tiny_concept, tiny_quiz
from concept_probe.testing.models.diffusion import tiny_sd


@pytest.fixture(scope="module")
def emoji():
    return load("emoji")


@pytest.mark.parametrize("name", ["emoji", "my-erased-checkpoint"])
def test_models_of_the_recipe_are_judged_whatever_they_are_called(emoji, name, monkeypatch):
    monkeypatch.setattr(emoji, "name", name)
    assert detect.judge_for(cp.concept("camel"), emoji).name == "emoji"
    assert detect.judge_for(cp.concept("contrast"), emoji).name == "emoji-style"


@pytest.mark.slow
def test_an_edited_or_rounded_model_of_the_recipe_is_judged(emoji):
    edit = cp.erase("uce", emoji, cp.concept("camel"))
    with edit.on(emoji):
        assert is_of_recipe(emoji)
    half = load("emoji", dtype=torch.float16)
    assert is_of_recipe(half)


@pytest.mark.parametrize("call", [judge_of, None])
def test_a_stranger_with_a_known_label_is_refused(call):
    subject, concept = tiny_sd(), tiny_concept()  # its label, cat, is one of the embedded recogniser's
    subject.name = "emoji"
    with pytest.raises(LookupError, match="made for the pictures of other models; name one that can: --recogniser"):
        judge_of(concept, None, subject) if call else find_vectors(subject, concept)


def test_a_model_with_the_autoencoder_and_other_words_is_a_stranger(emoji):
    other = SimpleNamespace(
        components=emoji.components, pipeline=SimpleNamespace(tokenizer=tiny_sd().pipeline.tokenizer)
    )
    assert not is_of_recipe(other) and is_of_recipe(emoji)


def test_a_stranger_may_be_judged_by_name_with_a_warning():
    with pytest.warns(UserWarning, match="made for the pictures of other models"):
        label, judge = judge_of(tiny_concept(), "emoji", tiny_sd())
    assert (label, judge.name) == ("cat", "emoji")


def test_gold_answers_belong_to_the_concept():
    assert detect.judge_for(tiny_quiz(), SimpleNamespace(name="any")).labels


@pytest.mark.parametrize("name", ["tests_looks:Mine", "tests_looks:mine", "tests_looks:make"])
def test_an_object_of_a_module_is_a_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests_looks.py").write_text(
        "class Mine:\n    name, version, labels = 'mine', '1', ('cat', 'none')\n"
        "    def probabilities(self, images): return images\n"
        "mine = Mine()\ndef make(): return Mine()\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it does not say whom it serves, and was named
        assert judge_of(tiny_concept(), name, tiny_sd())[1].name == "mine"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("emojy", "nearest: 'emoji'"),
        ("collections:OrderedDict", "no name, version, labels"),
        ("no_such_module:Looks", "can't be imported"),
        ("collections:Looks", "not found"),
        ("clip:", "folder"),
    ],
)
def test_what_is_no_recogniser_is_refused(name, said):
    with pytest.raises((ValueError, LookupError, ImportError, OSError), match=said):
        detect.recogniser(name, ["cat"])


def test_a_folder_is_a_name(tmp_path):
    from concept_probe.testbed import WEIGHTS

    assert detect.recogniser(str(WEIGHTS / "shared")).name == "emoji"
    assert detect.recogniser(str(WEIGHTS / "shared" / "clip"), ["cat"]).labels == ("cat", "none")
    with pytest.raises(ValueError, match="holds no recogniser"):
        detect.recogniser(str(tmp_path))
    assert issubclass(UnknownName, LookupError)
