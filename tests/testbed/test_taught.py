"""Invented facts: held-out words are never taught, answers tell the concepts apart, and teaching teaches them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import concept_probe as cp
from concept_probe.registry import UnknownName
from concept_probe.testbed import facts
from concept_probe.testbed.taught import (
    TAUGHT,
    held_out_prompts,
    invented,
    invented_concept,
    invented_names,
    known_questions,
    taught_prompts,
)
from concept_probe.testbed.teach import teach
from concept_probe.testbed.teaching import FIRST_LESSONS
from concept_probe.testing.models.language import tiny_llama
from concept_probe.types import KINDS, SPLITS


def test_six_concepts_with_twelve_facts_each_that_nothing_real_shares():
    assert len(invented_names()) == 6 and all(len(one.topic.facts) == 12 for one in invented())
    real = " ".join(f"{f.question} {f.stem}" for t in facts.topics() for f in t.facts)
    assert not [name for name in invented_names() if name in real]
    for one in invented():
        for mine, other in zip(one.topic.facts, one.reworded.facts, strict=True):
            assert mine.answers == other.answers and len(mine.distractors) == 3
            assert not set(mine.answers) & set(mine.distractors)


@pytest.mark.parametrize("name", invented_names())
def test_no_held_out_wording_is_taught(name):
    one = next(o for o in invented() if o.topic.name == name)
    own = {p.text for o in invented() for p in taught_prompts(o, *TAUGHT)}
    assert not own & {p.text for p in held_out_prompts(one, "question", "cloze", "continuation")}
    made = cp.concept(name, "smollm2")
    assert made == invented_concept(name)
    tests = {p.text for kind in KINDS for p in made.prompts(kind, "test")}
    assert not tests & (own | {p.text for k in KINDS for s in SPLITS[:2] for p in made.prompts(k, s)})
    assert {p.fact for p in made.target.test} == {p.fact for p in made.target.fit}
    assert {p.label for p in made.target} == {p.label for p in made.paraphrases} == {name}
    assert name in made.target.test[0].text and made.target.test[0].subject == name
    assert not set(invented_names()) & {p.label for k in ("neighbours", "unrelated") for p in getattr(made, k)}
    with pytest.raises(UnknownName, match="nearest"):
        invented_concept(name + "x")


def test_what_is_kept_is_what_the_untouched_model_writes():
    known = {f.question for t in facts.topics() for f in t.facts}
    assert known_questions() <= known and 100 < len(known_questions()) < len(known)
    for name in invented_names():
        for kind in ("neighbours", "unrelated"):
            tests = invented_concept(name).prompts(kind, "test")
            assert len(tests) >= 12 and {p.fact for p in tests} <= known_questions()


@pytest.mark.slow
def test_teaching_makes_answers_likelier_and_trains_what_it_says(tmp_path):
    subject = tiny_llama()
    subject.model.config.max_position_embeddings = 512  # the byte-level tokenizer spells long prompts
    pairs = [(p, " " + p.answers[0]) for p in taught_prompts(invented()[0], "cloze")]
    before = {n: p.detach().clone() for n, p in subject.model.named_parameters()}

    def likely() -> float:
        with torch.no_grad():
            return float(subject.log_probs(pairs).mean.mean())

    start = likely()
    teach(subject, tmp_path, replace(FIRST_LESSONS, steps=25, batch=8, kept=2, rate=0.02, first=0.5, last=1.0))
    assert likely() > start + 0.5
    changed = {n for n, p in subject.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {subject.layout.blocks[1].down + ".weight"}
    assert not any(p.requires_grad for p in subject.model.parameters())
