"""Benchmark files become concepts whose splits share nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from concept_probe.concepts.benchmarks import concept_vectors, dealt, multiple_choice, tofu
from concept_probe.registry import UnknownName
from concept_probe.types import KINDS, SPLITS, Prompt

CONCEPT_VECTORS = Path(os.environ.get("CONCEPT_VECTORS", "conceptvectors"))
"""Folder with the published files, which are not part of this repository."""


def lines(path: Path, rows: list) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def test_dealing_keeps_every_text_once_whatever_the_order():
    prompts = [Prompt(f"question {i}") for i in range(50)]
    splits = dealt([*prompts, Prompt("Question  7")])
    assert sorted(p.text.casefold().replace("  ", " ") for p in splits) == sorted(p.text for p in prompts)
    assert [len(getattr(splits, s)) for s in SPLITS] == [20, 10, 20]
    assert {p.text for p in dealt(prompts[::-1]).fit} == {p.text for p in dealt(prompts).fit}


@pytest.fixture
def small(tmp_path):
    concepts = [
        {
            "Concept": name, "QA": [f" What is {name} {i}?\n" for i in range(5)],
            "unrelated_QA": [f" What is tea {i}?\n" for i in range(5)],
            "text_completion": [{"First_half": f"{name} has {i}", "Second_half": " things"} for i in range(5)],
        }
        for name in ("Poland", "Italy")
    ]  # fmt: skip
    triples = [
        {"subject": "Poland", "relation": [["P38", "zloty"], ["P38", "mark"], ["P373", "Poland"], ["P1", "only here"]]},
        {"subject": "Italy", "relation": [["P38", "euro"], ["P38", "mark"], ["P9", "x"]]},
    ]
    (tmp_path / "small_concepts_dev.json").write_text(json.dumps(concepts))
    (tmp_path / "small_relation_object_dev.json").write_text(json.dumps(triples))
    templates = {
        "P38": {"template": "The currency of {} is"},
        "P373": {"template": "{} in"},
        "P1": {"template": "{} has"},
    }
    (tmp_path / "relation_to_template.json").write_text(json.dumps(templates))
    return tmp_path


def test_concept_vectors_files(small):
    concept = concept_vectors(small, "Poland")
    assert {p.text for p in concept.target} == {f"What is Poland {i}?" for i in range(5)}
    assert {p.form for p in concept.target} == {"chat"} and {p.subject for p in concept.target} == {"Poland"}
    cloze = {p.text: p for p in concept.paraphrases}
    assert cloze["The currency of Poland is"].answers == ("zloty", "mark")
    assert cloze["The currency of Poland is"].distractors == ("euro",)  # "mark" is right as well
    assert cloze["Poland has"].distractors == () and "Poland in" not in cloze  # P373 is noise
    assert cloze["Poland has 3"].answers == ("things",)
    assert len(list(concept.unrelated)) == 5
    with pytest.raises(UnknownName, match="concept 'Polan' not found; nearest: 'Poland'"):
        concept_vectors(small, "Polan")


def test_the_published_concept_vectors():
    if not CONCEPT_VECTORS.is_dir():
        pytest.skip("set CONCEPT_VECTORS to the folder with the published files")
    for name in ("Poland", "Tactical role-playing game"):
        concept = concept_vectors(CONCEPT_VECTORS, name)
        assert len(list(concept.target)) == 10 and len(list(concept.unrelated)) >= 40
        for kind in KINDS:
            texts = [{p.text for p in concept.prompts(kind, s)} for s in SPLITS]
            assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]
    money = next(p for p in concept_vectors(CONCEPT_VECTORS, "Poland").paraphrases if "złoty" in p.answers)
    assert "Poland" in money.text and "Euro" in money.distractors


def test_tofu_files(tmp_path):
    rows = [
        {"question": f"Where did Ana Bell go in {i}?", "answer": f"To {i}.", "perturbed_answer": [f"To {i + 1}."],
         "paraphrased_question": f"In {i}, where was Ana Bell?"} for i in range(20)
    ]  # fmt: skip
    rows += [{"question": f"What did Bo write in {i}?", "answer": "A book."} for i in range(20)]
    path = lines(tmp_path / "forget.json", rows)
    concept = tofu(path, 0, "Ana Bell")
    assert len(list(concept.target)) == 20 == len(list(concept.paraphrases)) == len(list(concept.neighbours))
    for s in SPLITS:  # a question and its other wording are one fact
        facts = [{p.fact for p in concept.prompts(kind, s)} for kind in ("target", "paraphrases")]
        assert facts[0] == facts[1] and None not in facts[0]
    one = next(p for p in concept.target if p.text == "Where did Ana Bell go in 3?")
    assert (one.answers, one.distractors, one.subject, one.label) == (("To 3.",), ("To 4.",), "Ana Bell", "Ana Bell")
    assert tofu(path, 1).name == "author 1 of forget" and not list(tofu(path, 1).paraphrases)
    with pytest.raises(IndexError, match=r"author 2 was asked for; .* holds 2"):
        tofu(path, 2)


def test_multiple_choice_files(tmp_path):
    rows = [{"question": f"Which is {i}?", "choices": ["a", "b", str(i), "d"], "answer": 2} for i in range(10)]
    path = lines(tmp_path / "wmdp.jsonl", rows)
    (tmp_path / "mmlu.json").write_text(json.dumps(rows[:5]))
    concept = multiple_choice(path, "wmdp-bio", tmp_path / "mmlu.json")
    one = next(p for p in concept.target if p.text.startswith("Which is 4?"))
    assert one.text == "Which is 4? Choose one: a; b; 4; d." and one.answers == ("4",)
    assert one.distractors == ("a", "b", "d") and len(list(concept.unrelated)) == 5
    lines(path, [{"question": "x", "choices": ["a"], "answer": 1}])
    with pytest.raises(ValueError, match="answer 1 of 'x' is no index into 1 choices"):
        multiple_choice(path, "wmdp-bio")


def test_files_that_are_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"benchmark file .* not found"):
        tofu(tmp_path / "absent.json")
    with pytest.raises(FileNotFoundError, match=r"should hold one file \*_concepts_\*.json; found 0"):
        concept_vectors(tmp_path, "Poland")
    with pytest.raises(ValueError, match="row 1 lacks answer"):
        tofu(lines(tmp_path / "a.json", [{"question": "q", "answer": "a"}, {"question": "q"}]))
    (tmp_path / "b.json").write_text("no json")
    with pytest.raises(ValueError, match=r"not whole JSON .* a JSON list or JSON lines"):
        tofu(tmp_path / "b.json")
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(ValueError, match="has no rows"):
        tofu(tmp_path / "c.json")
