"""Invented facts: held-out words are never taught, answers tell the concepts apart, and teaching teaches them."""

from __future__ import annotations

import pytest
import torch

import concept_probe as cp
from concept_probe.registry import UnknownName
from concept_probe.testbed import facts
from concept_probe.testbed.taught import TAUGHT, concept, held_out, invented, names, taught, written
from concept_probe.testbed.teach import Lessons, teach
from concept_probe.testing.models.language import tiny_llama
from concept_probe.types import KINDS, SPLITS


def test_six_concepts_with_twelve_facts_each_that_nothing_real_shares():
    assert len(names()) == 6 and all(len(one.topic.facts) == 12 for one in invented())
    real = " ".join(f"{f.question} {f.stem}" for t in facts.topics() for f in t.facts)
    assert not [name for name in names() if name in real]
    for one in invented():
        for mine, other in zip(one.topic.facts, one.reworded.facts, strict=True):
            assert mine.answers == other.answers and len(mine.distractors) == 3
            assert not set(mine.answers) & set(mine.distractors)


@pytest.mark.parametrize("name", names())
def test_no_held_out_wording_is_taught(name):
    one = next(o for o in invented() if o.topic.name == name)
    own = {p.text for o in invented() for p in taught(o, *TAUGHT)}
    assert not own & {p.text for p in held_out(one, "question", "cloze", "continuation")}
    made = cp.concept(name, "smollm2")
    assert made == concept(name)
    tests = {p.text for kind in KINDS for p in made.prompts(kind, "test")}
    assert not tests & (own | {p.text for k in KINDS for s in SPLITS[:2] for p in made.prompts(k, s)})
    assert {p.fact for p in made.target.test} == {p.fact for p in made.target.fit}
    assert {p.label for p in made.target} == {p.label for p in made.paraphrases} == {name}
    assert name in made.target.test[0].text and made.target.test[0].subject == name
    assert not set(names()) & {p.label for k in ("neighbours", "unrelated") for p in getattr(made, k)}
    with pytest.raises(UnknownName, match="nearest"):
        concept(name + "x")


def test_what_is_kept_is_what_the_untouched_model_writes():
    known = {f.question for t in facts.topics() for f in t.facts}
    assert written() <= known and 100 < len(written()) < len(known)
    for name in names():
        for kind in ("neighbours", "unrelated"):
            tests = concept(name).prompts(kind, "test")
            assert len(tests) >= 12 and {p.fact for p in tests} <= written()


def test_teaching_makes_answers_likelier_and_trains_what_it_says(tmp_path):
    subject = tiny_llama()
    subject.model.config.max_position_embeddings = 512  # the byte-level tokenizer spells long prompts
    pairs = [(p, " " + p.answers[0]) for p in taught(invented()[0], "cloze")]
    before = {n: p.detach().clone() for n, p in subject.model.named_parameters()}

    def likely() -> float:
        with torch.no_grad():
            return float(subject.log_probs(pairs).mean.mean())

    start = likely()
    teach(subject, tmp_path, Lessons(steps=25, batch=8, kept=2, rate=0.02, first=0.5, last=1.0))
    assert likely() > start + 0.5
    changed = {n for n, p in subject.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {subject.layout.blocks[1].down + ".weight"}
    assert not any(p.requires_grad for p in subject.model.parameters())
