"""The alternatives that AltPO prefers: the model's own, and never right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from concept_probe.detect.answers import is_right
from concept_probe.erasers import AltPo
from concept_probe.erasers.unlearning.alt_po import said_first
from concept_probe.erasers.unlearning.answer_sets import answer_pairs
from concept_probe.testing.concepts import tiny_facts
from concept_probe.testing.models.language import tiny_llama

CONCEPT = tiny_facts()


def test_alternatives_are_what_the_model_writes_and_never_right():
    subject, pairs = tiny_llama(), answer_pairs(CONCEPT, ("target",))
    made = AltPo(alternatives=3)
    found = made.others(subject, pairs)
    assert [len(texts) for texts in found] == [3] * len(pairs) and made.others(subject, pairs) == found
    for (prompt, _), texts in zip(pairs, found, strict=True):
        assert len(set(texts)) == 3 and not any(is_right(text, prompt) for text in texts)
        assert all(text.startswith(" ") and "\n" not in text for text in texts)
    assert AltPo(alternatives=3, seed=7).others(subject, pairs) != found
    prompt = replace(pairs[0][0], answers=tuple({t.strip() for t in AltPo(alternatives=1).others(subject, pairs)[0]}))
    (others,) = AltPo(alternatives=1).others(subject, [(prompt, pairs[0][1])])
    assert others[0].strip() not in prompt.answers
    asked = AltPo(ask="{prompt}{answer} or {prompt}").asked_of(*pairs[0])
    assert asked.text == f"{pairs[0][0].text}{pairs[0][1]} or {pairs[0][0].text}"
    assert said_first(" \n the old road. It is long.\nmore") == "the old road"


def test_a_model_that_writes_nothing_else_has_no_alternatives(monkeypatch):
    subject, pairs = tiny_llama(), answer_pairs(CONCEPT, ("target",))
    monkeypatch.setattr(subject, "generate", lambda queries, sampling: tuple(q.prompt.answers[0] for q in queries))
    with pytest.raises(ValueError, match=r"alt_po: .* writes nothing but the right answer to 'see the cat in'"):
        AltPo().others(subject, pairs)
