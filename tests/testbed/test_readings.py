"""Texts to train an autoencoder on: read as WordNet writes them, and nothing that judges is among them."""

from __future__ import annotations

import pytest

from concept_probe.testbed import facts, readings
from concept_probe.types import Sampling

LINES = {
    "noun": "  1 This software and database is being provided\n"
    "00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 ~ 04424418 n 0000 | that which is perceived  \n"
    "00001930 03 n 02 physical_entity 0 thing 1 001 @ 00001740 n 0000 | an entity that exists  \n",
    "verb": '00001740 29 v 01 breathe 0 001 * 00005041 v 0000 01 + 02 00 | draw air into; "I can breathe"  \n',
    "adj": "00004171 00 s 01 dying(p) 0 001 & 00003939 a 0000 | eagerly desirous  \n",
    "adv": '00001740 02 r 01 a_cappella 0 000 | without musical accompaniment; "they sang a | b"  \n',
}


@pytest.fixture
def folder(tmp_path):
    for part, text in LINES.items():
        (tmp_path / f"data.{part}").write_text(text, encoding="utf-8")
    return tmp_path


def test_glosses_are_read_and_parted(folder):
    learned, held = readings.glosses(5, folder)
    assert [p.text for p in (*held, *learned)] == [
        "entity: that which is perceived",
        "physical entity: an entity that exists",
        'breathe: draw air into; "I can breathe"',
        "dying: eagerly desirous",
        'a cappella: without musical accompaniment; "they sang a | b"',
    ]
    assert len(held) == 1 and not set(held) & set(learned)


def test_what_is_missing_is_named(folder):
    with pytest.raises(ValueError, match=r"6 glosses were asked for; WordNet in .* has 5"):
        readings.glosses(6, folder)
    (folder / "data.adv").unlink()
    with pytest.raises(FileNotFoundError, match=r"data\.adv.*wordnet-base"):
        readings.glosses(1, folder)


def test_nothing_that_selects_or_tests_is_told():
    told = {p.text for p in readings.fact_readings()}
    judges = {p.text for split in ("select", "test") for p in facts.fact_prompts(split)}
    stems = {fact.stem for t in facts.topics() for split in ("select", "test") for fact in t.of(split)}
    assert not told & judges and not any(text.startswith(stem) for text in told for stem in stems)
    parts = {f.question for t in facts.topics() if t.holds for f in t.facts}
    for p in facts.fact_prompts("fit"):  # what the shipped autoencoder read is read again by a new run, and no more
        assert any(text.startswith(p.text) for text in told) == (p.fact not in parts), p


def test_the_model_writes_on_from_each_word(folder):
    class Model:
        def generate(self, queries, sampling=Sampling()):
            assert [q.seed for q in queries] == [0, 1] and sampling.tokens == 3 and sampling.temperature == 1
            return tuple(f" {q.seed} thing" for q in queries)

    about = readings.glosses(5, folder)[0][:2]
    assert [p.text for p in readings.texts_written_by(Model(), about, 3)] == [
        "Physical entity is 0 thing",
        "Breathe is 1 thing",
    ]


def test_texts_of_like_length_stand_together():
    lengths = [len(p.text) for p in readings.by_length(readings.fact_readings()) if p.form == "plain"]
    assert lengths == sorted(lengths)
