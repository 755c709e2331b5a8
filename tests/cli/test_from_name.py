"""From a name and the folder of somebody's model to a report: what is made of the name, who looks, and what is refused."""

from __future__ import annotations

import re

import pytest
import torch
from typer.testing import CliRunner

from concept_probe.cli import app
from concept_probe.cli.shared.estimates import Work, WorkEstimate, audit_work
from concept_probe.concepts.captions import broad_captions, captions_around
from concept_probe.concepts.files import load_concept
from concept_probe.concepts.kits.kind_of import kinds_of, kit_for
from concept_probe.concepts.kits.lexicon import Meaning, NoLexicon
from concept_probe.detect.on_disk import clip_pairs
from concept_probe.evaluation.sight import CannotSee, fisher, sight, sight_queries
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models import TINY_MODELS, save_model
from concept_probe.testing.models.language import tiny_llama

KNOWN = {
    "mosaic": (Meaning("1", ("mosaic",), "a picture of pebbles", "artifact"),),
    "turkey": (Meaning("2", ("turkey",), "a fowl", "animal"), Meaning("3", ("Turkey",), "a country", "location")),
    "washington": (Meaning("4", ("Washington",), "a capital", "location"),),
}


class Words:
    """A database of three names."""

    name = "words"

    def senses(self, word):
        return KNOWN.get(word.lower(), ())


def lacking():
    raise NoLexicon("none")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("Van Gogh", {"style"}), ("mosaic", {"style", "object"}), ("turkey", {"object"}), ("Turkey", {"object", "place"}),
        ("Venice", {"place"}), ("Washington", {"person", "place"}), ("xyzzy", set()),
    ],
)  # fmt: skip
def test_a_name_is_known_as_what_lists_and_database_say(name, kinds):
    assert set(kinds_of(name, Words)) == kinds  # pyright: ignore[reportArgumentType]


def test_without_a_database_lists_still_know_names():
    assert set(kinds_of("mosaic", lacking)) == {"style"}
    with pytest.raises(NoLexicon):
        kinds_of("church", lacking)


def test_a_kind_that_the_model_has_no_answers_to_is_refused():
    with pytest.raises(ValueError, match="this model draws pictures; give --kind object"):
        kit_for("astronomy", "pictures", "topic")
    with pytest.raises(ValueError, match="answers with texts; leave --kind out"):
        kit_for("Van Gogh", "texts", "style")


def test_broad_captions_hold_nothing_that_is_tested():
    captions = broad_captions()
    assert len({p.text for p in captions}) == len(captions) == 2000 and captions == broad_captions()
    kit = kit_for("Van Gogh", "pictures").concept
    texts = {p.text for p in captions_around(kit)}
    tested = {p.text for p in (*kit.target.select, *kit.target.test, *kit.unrelated.test, *kit.neighbours.test)}
    assert not texts & tested and {p.text for p in kit.target.fit} <= texts


class Sees:
    """Sees a cat in the first pictures of those it is shown."""

    name, version, labels = "sees", "1", ("cat", "none")

    def __init__(self, count):
        self.count = count

    def probabilities(self, images):
        cats = (torch.arange(len(images)) < self.count).float()
        return torch.stack([cats, 1 - cats], 1)


def test_a_recogniser_is_measured_where_the_concept_was_and_was_not_asked_for():
    concept = tiny_concept()
    asked = sight_queries(concept)
    assert len(asked) == 32 and len(set(asked)) == 32
    assert {q.prompt for q in asked} <= {
        p for s in (concept.target, concept.neighbours, concept.unrelated) for p in s.select
    }
    images = torch.zeros(32, 3, 8, 8)
    found = sight(Sees(16), images, asked, concept)
    assert found.seen.value == 1 and found.mistaken.value == 0 and not found.blind
    found.refuse_blind("sees", "mend")
    for count in (0, 4, 32):
        with pytest.raises(CannotSee, match=r"'sees' can't tell the concept .* Take another"):
            sight(Sees(count), images, asked, concept).refuse_blind("sees", "Take another")


def test_fishers_test_counts_the_ways():
    assert fisher(2, 2, 0, 2) == pytest.approx(1 / 6)
    assert fisher(0, 5, 5, 5) == 1 and fisher(5, 16, 0, 16) == pytest.approx(0.02169, rel=1e-3)


def test_pairs_are_found_inside_a_model_and_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for place in ("model/judge", "my-clip", "no-words", "other", "cache/models--a--b/snapshots/1"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        kind = "bert" if place == "other" else "clip"
        (folder / "config.json").write_text(f'{{"model_type": "{kind}"}}')
        (folder / "model.safetensors").write_bytes(b"")
        if place != "no-words":
            (folder / "vocab.json").write_text("{}")
    found = clip_pairs(tmp_path / "model")
    assert [str(p.relative_to(tmp_path)) for p in found] == ["model/judge", "my-clip", "cache/models--a--b/snapshots/1"]


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return str(save_model(TINY_MODELS["sd"](), tmp_path_factory.mktemp("models") / "sd"))


def call(*args):
    shown = CliRunner().invoke(app, list(args))
    return shown.exit_code, " ".join(shown.output.split())


@pytest.mark.slow
def test_a_name_that_may_be_meant_in_two_ways_is_refused_with_the_choices(stranger, tmp_path):
    pytest.importorskip("wn")
    code, said = call("run", "mosaic", "--model", stranger, "--output", str(tmp_path / "x"))
    assert code == 2 and "--kind style (prints and crafts); --kind object (" in said
    code, said = call("run", "mosaic", "--kind", "styl", "--model", stranger, "--output", str(tmp_path / "x"))
    assert code == 2 and "nearest: 'style'" in said
    code, said = call("run", "camel", "--kind", "object", "--output", str(tmp_path / "x"))
    assert code == 2 and "a concept of emoji is whole; leave it out" in said


@pytest.mark.slow
def test_nobody_is_relied_on_who_sees_nothing_in_the_models_pictures(stranger, tmp_path):
    pytest.importorskip("wn")
    code, said = call("run", "cat", "--kind", "object", "--model", stranger, "--output", str(tmp_path / "x"))
    assert code == 2 and "can't tell the concept in pictures of the untouched model: 'cat' seen" in said
    assert "Give --recogniser one that knows your model's pictures" in said and not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_language_model_that_knows_nothing_of_a_topic_is_not_erased_of_it(tmp_path):
    pytest.importorskip("wn")
    subject = tiny_llama()
    subject.model.config.max_position_embeddings = 512  # the byte-level tokenizer spells long prompts
    subject.pipeline.save_pretrained(tmp_path / "lm")
    code, said = call("run", "astronomy", "--model", str(tmp_path / "lm"), "--output", str(tmp_path / "x"))
    assert code == 2 and "answers none of 16 questions on 'astronomy' rightly" in said and "--concept-file" in said
    code, said = call("run", "Hogwarts", "--model", str(tmp_path / "lm"), "--output", str(tmp_path / "x"))
    assert code == 2 and "give --concept-file with prompts that have `answers` and `distractors`" in said


VERBS = {
    "run": ["run", "camel", "--output", "x"],
    "capture": ["capture", "--output", "x", "--limit", "8"],
    "find": ["find", "camel", "--output", "x"],
    "find columns": ["find", "camel", "--what", "columns", "--output", "x"],
    "erase": ["erase", "camel", "--method", "esd", "--output", "x"],
    "attack": ["attack", "camel", "--method", "uce"],
    "audit": ["audit", "camel", "--method", "uce", "--output", "x"],
    "bench": ["bench", "camel", "--eraser", "uce", "--output", "x"],
    "calibrate": ["calibrate", "--output", "x"],
    "browse": ["browse", "SAE", "--output", "x.html"],
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_that_computes_says_first_what_it_takes_and_does_nothing(verb, tmp_path, monkeypatch):
    from concept_probe.learn import checkpoint_folder

    sae = str(next(p.parent for p in checkpoint_folder().glob("emoji/*/cfg.json")))
    monkeypatch.chdir(tmp_path)
    code, said = call(*(sae if word == "SAE" else word for word in VERBS[verb]), "--estimate")
    assert code == 0, said
    assert re.search(r"\d s", said) and "GB" in said and "on disk" in said, said
    assert not any(p.is_file() and p.suffix in (".json", ".html", ".safetensors") for p in tmp_path.rglob("*"))


def test_an_estimate_adds_up():
    found = WorkEstimate(
        (Work("a", answers=10), Work("b", gradient_steps=4, seconds=1.0, memory=5)), 2.0, 0.5, 7, 100, "texts"
    )
    assert found.seconds == 20 + 1 + 2
    first, *_, last = found.lines()
    assert first == "a: at most 10 texts, 20 s" and "about 23 s" in last


def test_the_parts_of_an_audit_are_what_it_asks():
    from concept_probe.auditing import AuditPlan

    concept, subject = tiny_concept(), TINY_MODELS["sd"]()
    plan = AuditPlan(prompts=3, seeds=(0,), fit_images=4)
    asked, attacked = audit_work(plan, subject, concept, 2)
    assert asked.answers == 2 * (3 + 2 + 2 + 3 + 3 + 2 * 4)
    assert attacked.answers == 2 * 3 * plan.budget.queries


@pytest.mark.slow
def test_a_copy_of_a_known_model_needs_nothing_but_the_name(tmp_path):
    """Everything that was taken without being asked for stands in the report."""
    import concept_probe as cp
    from concept_probe.report import from_json

    model = str(save_model(cp.load("emoji"), tmp_path / "stranger"))
    code, said = call(
        "run",
        "camel",
        "--model",
        model,
        "--eraser",
        "uce",
        "--prompts",
        "2",
        "--seeds",
        "1",
        "--output",
        str(tmp_path / "x"),
    )
    assert code == 0, said
    report = from_json((tmp_path / "x" / "report.json").read_text(encoding="utf-8"))
    assert report.provenance["default concept"] == "'camel' as it comes with the package"
    assert "seen where asked for in 100%" in report.provenance["default recogniser"]
    assert load_concept(tmp_path / "x" / "concept.json").name == "camel"
