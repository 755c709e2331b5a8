"""Files of published benchmarks: nothing of them is left out in silence, and each layout has its own reader."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace

import pytest

from concept_probe import detect
from concept_probe.concepts.benchmarks import concept_vectors, muse_knowmem, muse_verbmem, tofu


@pytest.fixture
def folder(tmp_path):
    names = ("Poland", "Italy")
    concepts = [
        {"Concept": n, "Layer": 1, "Dim": 2, "QA": [f"What is {n} {i}?" for i in range(5)], "unrelated_QA": ["Tea?"]}
        for n in names
    ]
    triples = [
        {"subject": "Poland", "relation": [["P17", "Poland"], ["P30", "Europe"], ["P1", "only here"]]},
        {"subject": "Italy", "relation": [["P17", "Italy"], ["P30", "poland"], ["P30", "Asia"], ["P30", "europe"]]},
    ]
    (tmp_path / "a_concepts_dev.json").write_text(json.dumps(concepts))
    (tmp_path / "a_relation_object_dev.json").write_text(json.dumps(triples))
    return tmp_path


def test_triples_without_their_wordings_are_told(folder, tmp_path):
    with pytest.warns(UserWarning, match=r"holds triples but no relation_to_template.json"):
        assert not list(concept_vectors(folder, "Poland").paraphrases)
    wordings = tmp_path / "elsewhere.json"
    wordings.write_text(json.dumps({"P30": {"template": "The continent of {} is"}, "P17": {"template": "{} is in"}}))
    with pytest.warns(UserWarning) as told:
        (cloze,) = concept_vectors(folder, "Poland", wordings).paraphrases
    said = " ".join(str(w.message) for w in told)
    assert "words none of the relations P1 of 'Poland'" in said and "have no gold answers" in said
    # The concept's own name neither answers nor misleads, however it is written; nor does what is right.
    assert (cloze.answers, cloze.distractors) == (("Europe",), ("Asia",))
    with pytest.raises(FileNotFoundError, match=r"file of templates .* not found"):
        concept_vectors(folder, "Poland", tmp_path / "absent.json")


def rows(path, *each):
    path.write_text("".join(json.dumps(row) + "\n" for row in each))
    return path


def test_questions_on_a_corpus_are_one_target_with_the_retained_as_neighbours(tmp_path):
    forget = rows(tmp_path / "forget_qa.json", *({"question": f"Who is {i}?", "answer": f"N{i}"} for i in range(40)))
    retain = rows(tmp_path / "retain_qa.json", {"question": "Who stays?", "answer": ["A", "B"]})
    concept = muse_knowmem(forget, "a corpus", retain)
    assert len(list(concept.target)) == 40 and {p.form for p in concept.target} == {"plain"}
    one = next(p for p in concept.target if "Who is 7?" in p.text)
    assert (one.text, one.answers, one.label) == ("Question: Who is 7?\nAnswer:", ("N7",), "a corpus")
    (kept,) = concept.neighbours
    assert kept.answers == ("A", "B") and kept.label is None
    with pytest.raises(ValueError, match="row 0 lacks prompt, gt"):
        muse_verbmem(forget, "a corpus")


def test_texts_of_a_corpus_go_on_as_they_did(tmp_path):
    path = rows(
        tmp_path / "forget.json", *({"prompt": f"It was {i} o'clock ", "gt": " when it rained."} for i in range(5))
    )
    (one,) = [p for p in muse_verbmem(path, "a corpus").target if "3 o'clock" in p.text]
    assert (one.text, one.answers, one.form) == ("It was 3 o'clock", ("when it rained.",), "plain")


def test_another_wording_of_an_answer_is_right_too(tmp_path):
    questions = [
        {"question": f"Where was Ana Bell in {i}?", "answer": f"In {i}.", "paraphrased_answer": f"There: {i}."}
        for i in range(20)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        concept = tofu(rows(tmp_path / "a.json", *questions), name="Ana Bell")
    assert next(p for p in concept.target if "in 3?" in p.text).answers == ("In 3.", "There: 3.")


def test_rows_that_are_no_authors_are_told(tmp_path):
    books = [{"question": f"Who helps Harry Potter in {i}?", "answer": "A friend."} for i in range(60)]
    for count in (60, 33):
        with pytest.warns(UserWarning, match=r"does not look like a file of TOFU.*muse_knowmem"):
            tofu(rows(tmp_path / "forget_qa.json", *books[:count]))


def test_texts_of_a_concept_without_answers_have_no_judge_and_the_reason_is_said(folder):
    with pytest.warns(UserWarning, match="no gold answers"):
        concept = concept_vectors(folder, "Italy")
    with pytest.raises(
        LookupError, match=r"no target prompt of 'Italy' has `answers`.*lists with answers: none.*log_probs"
    ):
        detect.judge_for(concept, SimpleNamespace(name="a model", answers="texts"))
