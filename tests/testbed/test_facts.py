"""The packaged facts: many enough, in several wordings, and never in two splits."""

from __future__ import annotations

import pytest

import concept_probe as cp
from concept_probe.concepts.files import load_concept, save_concept
from concept_probe.registry import UnknownName
from concept_probe.testbed import facts
from concept_probe.testbed.facts import WORDINGS, prompt, read_topics, topics, topics_text
from concept_probe.types import KINDS, SPLITS, Split


def test_there_are_enough_of_them():
    assert len(topics()) >= 12
    assert all(len(t.facts) >= 20 for t in topics())
    domains = [t.domain for t in topics()]
    assert all(domains.count(d) >= 3 for d in domains), "every concept has neighbours"
    texts = [text for t in topics() for f in t.facts for text in (f.question, f.stem)]
    assert len(set(texts)) == len(texts)
    for t in topics():
        for f in t.facts:
            assert f.answers and len(f.distractors) >= 3 and not set(f.answers) & set(f.distractors)
            assert f.question.endswith("?") and f.stem == f.stem.strip() and f.stem[-1] not in ",:?!"


@pytest.mark.parametrize("name", facts.fact_names())
def test_no_fact_is_in_two_splits_and_no_other_prompt_is_the_concept_s(name):
    concept = cp.concept(name, "smollm2")
    for kind in KINDS:
        seen = [{p.text for p in concept.prompts(kind, s)} for s in SPLITS]
        assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    seen = [{p.fact for kind in ("target", "paraphrases") for p in concept.prompts(kind, s)} for s in SPLITS]
    topic = next(t for t in topics() if t.name == name)
    counts: dict[Split, int] = {s: len(topic.of(s)) for s in SPLITS}
    assert min(counts.values()) >= 6 and max(counts.values()) - min(counts.values()) <= 1
    assert [len(s) for s in seen] == list(counts.values()) and len(set.union(*seen)) == len(topic.facts)
    own = {p.text for kind in ("target", "paraphrases") for p in getattr(concept, kind)}
    others = {p.text for kind in ("neighbours", "unrelated") for p in getattr(concept, kind)}
    assert not own & others
    for split, count in counts.items():
        assert len(concept.prompts("target", split)) == count
        assert len(concept.prompts("paraphrases", split)) == 4 * count
    assert {p.label for p in concept.target} == {name} and name not in {p.label for p in concept.neighbours}
    near = {t.name for t in topics() if t.domain == topic.domain and not t.holds}
    assert {p.label for p in concept.neighbours} == near - {name, *topic.holds}
    assert not {p.label for p in concept.unrelated} & near


def test_a_part_is_no_neighbour_of_the_whole_and_the_whole_is_kept_by_nobody():
    (whole,) = [t for t in topics() if t.holds]
    assert whole.name == "mathematics" and whole.holds == ("geometry",) and set(whole.holds) < set(facts.fact_names())
    assert "geometry" not in {p.label for p in cp.concept("mathematics", "smollm2").neighbours}
    for topic in topics():
        made = cp.concept(topic.name, "smollm2")
        assert "mathematics" not in {p.label for kind in ("neighbours", "unrelated") for p in getattr(made, kind)}


def test_wordings():
    topic = topics()[0]
    fact = topic.facts[0]
    asked = {w: prompt(topic, fact, w) for w in WORDINGS}
    assert {w: p.form for w, p in asked.items()} == {
        "question": "plain",
        "cloze": "plain",
        "continuation": "plain",
        "chat": "chat",
        "choice": "plain",
    }
    assert asked["question"].text == f"{asked['chat'].text} {asked['cloze'].text}"
    assert {(p.answers, p.distractors) for p in asked.values()} == {(fact.answers, fact.distractors)}
    assert all(option in asked["choice"].text for option in (fact.answers[0], *fact.distractors))
    places = [
        prompt(t, f, "choice").text.split("? Either ")[1].startswith(f.answers[0]) for t in topics() for f in t.facts
    ]
    assert 0.15 < sum(places) / len(places) < 0.35  # the right one stands anywhere
    assert asked["continuation"].text.endswith(fact.stem) and topic.name in asked["continuation"].text
    assert all(p.subject in (None, topic.name) for p in asked.values())
    with pytest.raises(UnknownName, match="wording 'clozes' not found; nearest: 'cloze'"):
        prompt(topic, fact, "clozes")


def test_names_and_files(tmp_path):
    with pytest.raises(UnknownName, match="concept 'Jappan' not found; nearest: 'Japan'"):
        cp.concept("Jappan", "smollm2")
    path = tmp_path / "facts.json"
    path.write_text(topics_text(topics()), encoding="utf-8")
    assert read_topics(path) == topics()
    concept = cp.concept("Japan", "smollm2")
    save_concept(concept, tmp_path / "japan.json")
    again = load_concept(tmp_path / "japan.json")
    for kind in ("target", "paraphrases"):
        assert getattr(again, kind) == getattr(concept, kind)
    assert len(cp.prompts("smollm2")) == sum(len(t.of("fit")) for t in topics()) * len(WORDINGS)


def test_a_concept_file_with_answers_that_are_no_texts_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"name": "x", "target": {"fit": [{"text": "a", "answers": "b"}]}}')
    with pytest.raises(ValueError, match="answers should be a list of texts; found 'b'"):
        load_concept(path)
    path.write_text('{"name": "x", "target": {"fit": [{"text": "a", "form": "poem"}]}}')
    with pytest.raises(UnknownName, match="form of prompt 'poem' not found"):
        load_concept(path)
